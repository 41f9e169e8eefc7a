//! Where a user stands with each item, and the notices of late.
use crate::item::ItemRow;
use chrono::TimeDelta;
use gavel_proto::{
    events_v1::{ItemEvent, ItemState, item_event::Fact},
    v1::{
        NoticeKind, Standing, StandingStatus, UserNotice, UserStandings, WatchUserResponse, watch_user_response::Frame,
    },
};
use gavel_runtime::{
    Result, clock,
    live::{News, Reconciled},
    rpc::Encoded,
};
use std::collections::{HashMap, VecDeque};

/// A win is shown for so long,
pub(super) const WON_WITHIN_DAYS: i32 = 30;
/// and what somebody else has won, for those who were away at its end.
pub(super) const LOST_WITHIN_DAYS: i32 = 1;
/// Standings in a snapshot.
pub(super) const MOST: usize = 1_000;

/// Notices that are kept for clients that do not keep up: who is further behind gets a snapshot.
const KEPT: usize = 64;

/// One user's.
#[derive(Default)]
pub struct Standings {
    by_item: HashMap<String, Standing>,
    notices: VecDeque<Encoded<WatchUserResponse>>,
    /// Notices so far, also those that are kept no longer.
    counted: usize,
}

impl Standings {
    pub(super) fn of(user: &str, items: &[ItemRow], ceiling_minor: i64) -> Result<Self> {
        let mut standings = Self::default();
        for item in items {
            let status = match (item.leader_id.as_deref() == Some(user), item.closed_at) {
                (_, Some(_)) if item.cancel_reason.is_some() => StandingStatus::Cancelled,
                (true, Some(_)) => StandingStatus::Won,
                (true, None) => StandingStatus::Leading,
                (false, Some(_)) => StandingStatus::Lost,
                (false, None) => StandingStatus::Outbid,
            };
            standings.take(standing(&item.state(ceiling_minor)?, item.version, status));
        }
        Ok(standings)
    }

    /// Takes a standing in, unless a newer one of the item is known.
    fn take(&mut self, standing: Standing) -> bool {
        let known = self.by_item.get(&standing.item_id);
        let is_newer = known.is_none_or(|known| known.version < standing.version);
        if is_newer {
            self.by_item.insert(standing.item_id.clone(), standing);
        }
        is_newer
    }

    /// Puts right what events have made of it. The database knows every item at least as well; but which ones the user
    /// has bid on, it may learn moments later.
    pub(super) fn reconcile(&mut self, loaded: Self) -> Reconciled {
        let mut found = Reconciled::Same;
        for (item_id, standing) in loaded.by_item {
            match self.by_item.get(&item_id) {
                Some(held) if *held == standing => continue,
                Some(held) if held.version >= standing.version => found = Reconciled::Repaired,
                _ if found == Reconciled::Same => found = Reconciled::Newer,
                _ => {}
            }
            self.by_item.insert(item_id, standing);
        }
        found
    }

    /// Returns whether there is a notice.
    pub(super) fn apply(&mut self, user: &str, event: &ItemEvent) -> bool {
        let (Some(item), Some(fact)) = (&event.item, &event.fact) else { return false };
        let (status, notices): (_, &[(NoticeKind, i64)]) = match fact {
            Fact::BidAccepted(bid) if bid.bidder_id == user => (StandingStatus::Leading, &[]),
            Fact::BidAccepted(bid) if bid.outbid_user_id == user => {
                (StandingStatus::Outbid, &[(NoticeKind::Outbid, 0)])
            }
            Fact::Closed(closed) if closed.winner_id == user => {
                (StandingStatus::Won, &[(NoticeKind::Won, 0), (NoticeKind::PaymentDue, closed.hammer_price_minor)])
            }
            Fact::Closed(_) if self.by_item.contains_key(&item.item_id) => {
                (StandingStatus::Lost, &[(NoticeKind::Lost, 0)])
            }
            Fact::Cancelled(_) if self.by_item.contains_key(&item.item_id) => {
                (StandingStatus::Cancelled, &[(NoticeKind::Cancelled, 0)])
            }
            Fact::Closed(_) | Fact::Cancelled(_) | Fact::BidAccepted(_) | Fact::Created(_) | Fact::Started(_) => {
                return false;
            }
        };
        let standing = standing(item, event.version, status);
        if !self.take(standing.clone()) {
            return false;
        }
        for (kind, due_minor) in notices {
            self.notice(&UserNotice {
                event_id: event.event_id.clone(),
                kind: (*kind).into(),
                standing: Some(standing.clone()),
                due_minor: *due_minor,
                occurred_at: event.occurred_at,
            });
        }
        !notices.is_empty()
    }

    fn notice(&mut self, notice: &UserNotice) {
        if self.notices.len() == KEPT {
            self.notices.pop_front();
        }
        let frame = Frame::Notice(notice.clone());
        self.notices.push_back(Encoded::of(&WatchUserResponse { frame: Some(frame) }));
        self.counted += 1;
    }

    /// Returns what a client that has seen so many notices is to be sent, and how many it has seen then.
    pub(super) fn since(&self, told: usize, news: News) -> (usize, Vec<Encoded<WatchUserResponse>>) {
        let behind = self.counted.saturating_sub(told);
        let frames = match news {
            News::Changed | News::Pulse if behind <= self.notices.len() => {
                self.notices.iter().skip(self.notices.len() - behind).cloned().collect()
            }
            News::Loaded | News::Changed | News::Pulse => {
                let frame = Some(Frame::Snapshot(self.shown()));
                vec![Encoded::of(&WatchUserResponse { frame })]
            }
        };
        (self.counted, frames)
    }

    /// Returns what a snapshot says.
    fn shown(&self) -> UserStandings {
        let mut standings: Vec<_> = self.by_item.values().cloned().collect();
        let ends = |standing: &Standing| standing.ends_at.map(|at| (at.seconds, at.nanos));
        let shown_since = (clock::wall() - TimeDelta::days(LOST_WITHIN_DAYS.into())).timestamp();
        let is_lost =
            |standing: &Standing| matches!(standing.status(), StandingStatus::Lost | StandingStatus::Cancelled);
        standings.retain(|standing| !is_lost(standing) || ends(standing) > Some((shown_since, 0)));
        standings.sort_by(|a, b| ends(b).cmp(&ends(a)).then_with(|| a.item_id.cmp(&b.item_id)));
        standings.truncate(MOST);
        UserStandings { standings }
    }
}

fn standing(item: &ItemState, version: i64, status: StandingStatus) -> Standing {
    Standing {
        item_id: item.item_id.clone(),
        title: item.title.clone(),
        version,
        status: status.into(),
        currency: item.currency.clone(),
        price_minor: item.price_minor.unwrap_or_default(),
        next_minimum_minor: item.next_minimum_minor,
        ends_at: item.ends_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::events_v1::{BidAccepted, ItemClosed};

    fn event(version: i64, fact: Fact) -> ItemEvent {
        let item = ItemState { item_id: "lamp".to_owned(), price_minor: Some(version * 100), ..ItemState::default() };
        ItemEvent { version, item: Some(item), fact: Some(fact), ..ItemEvent::default() }
    }

    fn bid(version: i64, bidder: &str, outbid: &str) -> ItemEvent {
        let fact =
            BidAccepted { bidder_id: bidder.to_owned(), outbid_user_id: outbid.to_owned(), ..Default::default() };
        event(version, Fact::BidAccepted(fact))
    }

    fn status(standings: &Standings) -> StandingStatus {
        standings.by_item["lamp"].status()
    }

    #[test]
    fn a_bid_is_no_notice_being_outbid_is_one_and_a_win_is_two() {
        let mut standings = Standings::default();
        assert!(!standings.apply("ann", &bid(2, "ann", "")));
        assert_eq!(status(&standings), StandingStatus::Leading);
        assert!(standings.apply("ann", &bid(3, "bob", "ann")));
        assert_eq!((status(&standings), standings.counted), (StandingStatus::Outbid, 1));
        let won = ItemClosed { winner_id: "ann".to_owned(), hammer_price_minor: 400 };
        assert!(standings.apply("ann", &event(5, Fact::Closed(won))));
        assert_eq!((status(&standings), standings.counted), (StandingStatus::Won, 3));
    }

    #[test]
    fn an_end_is_a_notice_to_who_has_bid_and_to_nobody_else() {
        let mut standings = Standings::default();
        assert!(standings.apply("ann", &bid(3, "bob", "ann")));
        let end = || ItemClosed { winner_id: "bob".to_owned(), hammer_price_minor: 300 };
        assert!(standings.apply("ann", &event(4, Fact::Closed(end()))));
        assert_eq!((status(&standings), standings.counted), (StandingStatus::Lost, 2));
        let mut stranger = Standings::default();
        assert!(!stranger.apply("eve", &event(4, Fact::Closed(end()))));
        assert!(stranger.by_item.is_empty());
    }

    #[test]
    fn a_snapshot_tells_who_was_away_of_what_was_lost_lately_and_of_nothing_older() {
        let lost = |item: &str, ago: TimeDelta| Standing {
            item_id: item.to_owned(),
            status: StandingStatus::Lost.into(),
            ends_at: Some(prost_types::Timestamp { seconds: (clock::wall() - ago).timestamp(), nanos: 0 }),
            ..Standing::default()
        };
        let mut standings = Standings::default();
        standings.take(lost("lately", TimeDelta::hours(23)));
        standings.take(lost("long ago", TimeDelta::hours(25)));
        assert_eq!(standings.shown().standings, [standings.by_item["lately"].clone()]);
    }

    #[test]
    fn what_comes_twice_or_late_is_no_notice() {
        let mut standings = Standings::default();
        assert!(standings.apply("ann", &bid(3, "bob", "ann")));
        assert!(!standings.apply("ann", &bid(3, "bob", "ann")));
        assert!(!standings.apply("ann", &bid(2, "ann", "")));
        assert_eq!((status(&standings), standings.counted), (StandingStatus::Outbid, 1));
    }

    #[test]
    fn a_standing_that_was_made_up_is_put_right() {
        let mut standings = Standings::default();
        standings.apply("ann", &bid(9_000, "ann", ""));
        let mut truth = Standings::default();
        truth.apply("ann", &bid(3, "bob", "ann"));
        assert_eq!(standings.reconcile(truth), Reconciled::Repaired);
        assert_eq!((status(&standings), standings.by_item["lamp"].version), (StandingStatus::Outbid, 3));
        assert_eq!(
            standings.reconcile(Standings::default()),
            Reconciled::Same,
            "what the database learns later is kept"
        );
        assert_eq!(standings.by_item.len(), 1);
    }

    #[test]
    fn who_is_too_far_behind_gets_a_snapshot() {
        let mut standings = Standings::default();
        for n in 0..=KEPT {
            standings.apply("ann", &bid(2 + n as i64, "bob", "ann"));
        }
        assert_eq!(standings.since(0, News::Changed).1.len(), 1, "a snapshot of one item");
        assert_eq!(standings.since(1, News::Changed).1.len(), KEPT, "all that are kept");
        assert_eq!(standings.since(KEPT, News::Changed).1.len(), 1, "the last notice");
        assert!(standings.since(KEPT + 1, News::Pulse).1.is_empty());
    }
}
