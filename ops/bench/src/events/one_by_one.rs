//! The baseline of the statistics: the same runtime, the same queue, a transaction for each event.
use crate::{EXPAND, ours};
use gavel_proto::events_v1::{ItemEvent, item_event::Fact};
use gavel_runtime::{
    App, Result, Tx, message,
    spec::{Limits, Spec, Trigger},
    testing::Worker,
};

struct OneByOne;

impl message::TxHandler for OneByOne {
    const SPEC: &'static Spec = &Spec::new("apply_user_stats", Trigger::Message(&["bid.accepted", "item.closed"]))
        .limits(Limits::DEFAULT.concurrency(4));
    type Message = ItemEvent;

    async fn handle(tx: &mut Tx, event: &ItemEvent) -> Result<()> {
        let (Some(item), Some(Fact::BidAccepted(bid))) = (&event.item, &event.fact) else { return Ok(()) };
        sqlx::query(
            "INSERT INTO user_stats AS s (user_id, currency, bids_placed) VALUES ($1, $2, 1)
             ON CONFLICT (user_id, currency)
             DO UPDATE SET bids_placed = s.bids_placed + 1, updated_at = clock_timestamp()",
        )
        .bind(&bid.bidder_id)
        .bind(&item.currency)
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}

pub(crate) fn start(database_url: &str, amqp_url: &str) -> anyhow::Result<Worker> {
    let app = App::new("gavel", &EXPAND).message_tx::<OneByOne>();
    Worker::start(app, &ours::backends(database_url, amqp_url)?)
}
