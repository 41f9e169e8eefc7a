use gavel_runtime::{Result, Tx};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What is added to a user's statistics in one currency.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) bids_placed: i64,
    pub(super) items_bid_on: i64,
    pub(super) items_won: i64,
    pub(super) total_spent_minor: i64,
}

/// Sums by user and currency, in the order in which their rows are locked.
pub(super) type Sums<'a> = BTreeMap<(&'a str, &'a str), Sum>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sale<'a> {
    pub(super) item_id: Uuid,
    pub(super) user_id: &'a str,
    pub(super) currency: &'a str,
    pub(super) amount_minor: i64,
}

/// Enters sales into the ledger and gives those that were not in it yet: only they are to be added.
pub(super) async fn enter_sales<'a>(tx: &mut Tx, mut sales: Vec<Sale<'a>>) -> Result<Vec<Sale<'a>>> {
    if sales.is_empty() {
        return Ok(sales);
    }
    sales.sort_unstable_by_key(|sale| sale.item_id);
    sales.dedup_by_key(|sale| sale.item_id);
    let texts = |of: fn(&Sale<'a>) -> &'a str| sales.iter().map(|sale| of(sale).to_owned()).collect::<Vec<_>>();
    let entered = sqlx::query_scalar!(
        "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor)
         SELECT item_id, user_id, currency, amount_minor
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) AS s (item_id, user_id, currency, amount_minor)
         ON CONFLICT (item_id) DO NOTHING
         RETURNING item_id",
        &sales.iter().map(|sale| sale.item_id).collect::<Vec<_>>(),
        &texts(|sale| sale.user_id),
        &texts(|sale| sale.currency),
        &sales.iter().map(|sale| sale.amount_minor).collect::<Vec<_>>(),
    );
    let entered: HashSet<_> = entered.fetch_all(tx.conn()).await?.into_iter().collect();
    sales.retain(|sale| entered.contains(&sale.item_id));
    Ok(sales)
}

/// Adds all sums in one statement, whose rows come in one order whoever adds them.
pub(super) async fn add(tx: &mut Tx, sums: &Sums<'_>) -> Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let figures = |of: fn(&Sum) -> i64| sums.values().map(of).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO user_stats AS s (user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on)
         SELECT user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
           AS n (user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on)
         ON CONFLICT (user_id, currency)
         DO UPDATE SET bids_placed = s.bids_placed + excluded.bids_placed,
                       items_won = s.items_won + excluded.items_won,
                       total_spent_minor = s.total_spent_minor + excluded.total_spent_minor,
                       items_bid_on = s.items_bid_on + excluded.items_bid_on,
                       updated_at = clock_timestamp()",
        &sums.keys().map(|(user_id, _)| (*user_id).to_owned()).collect::<Vec<_>>(),
        &sums.keys().map(|(_, currency)| (*currency).to_owned()).collect::<Vec<_>>(),
        &figures(|sum| sum.bids_placed),
        &figures(|sum| sum.items_won),
        &figures(|sum| sum.total_spent_minor),
        &figures(|sum| sum.items_bid_on),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Users and the items that they have bid on, in the order in which their rows are locked, with the items' currencies.
pub(super) type Follows<'a> = BTreeMap<(&'a str, Uuid), &'a str>;

/// Users who were counted for an item for the first time, by item.
#[derive(Default)]
pub(super) struct Counted(HashMap<Uuid, HashSet<String>>);

impl Counted {
    pub(super) fn has(&self, user_id: &str, item_id: Uuid) -> bool {
        self.0.get(&item_id).is_some_and(|users| users.contains(user_id))
    }
}

/// Remembers who has bid on what; gives those who had not been counted for that item. Their mark is the receipt: a
/// backfill that counts those of before turns it as well.
pub(super) async fn follow(tx: &mut Tx, follows: &Follows<'_>) -> Result<Counted> {
    if follows.is_empty() {
        return Ok(Counted::default());
    }
    let (users, items): (Vec<_>, Vec<_>) = follows.keys().map(|(user, item)| ((*user).to_owned(), *item)).unzip();
    let counted = sqlx::query!(
        "INSERT INTO user_items AS u (user_id, item_id, is_counted)
         SELECT user_id, item_id, true FROM unnest($1::text[], $2::uuid[]) AS f (user_id, item_id)
         WHERE NOT EXISTS (SELECT FROM user_items c
                           WHERE c.user_id = f.user_id AND c.item_id = f.item_id AND c.is_counted)
         ON CONFLICT (user_id, item_id) DO UPDATE SET is_counted = true WHERE NOT u.is_counted
         RETURNING user_id, item_id",
        &users,
        &items,
    );
    let mut by_item = Counted::default();
    for row in counted.fetch_all(tx.conn()).await? {
        by_item.0.entry(row.item_id).or_default().insert(row.user_id);
    }
    Ok(by_item)
}
