//! What concerns one user: where they stand, then a notice of each change, for as long as the client listens.
mod sql;
mod standings;

use crate::{convert::own_or_any, item::routing_key, live::heartbeat};
use gavel_proto::{
    events_v1::{ItemEvent, item_event::Fact},
    v1::{self, WatchUserResponse, watch_user_response::Frame},
};
use gavel_rules::UserId;
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    live::{Feed, News, Reconciled, Topics},
    rpc::{self, Encoded, Sink},
    spec::{Limits, Spec, Trigger},
};
use standings::{LOST_WITHIN_DAYS, MOST, Standings, WON_WITHIN_DAYS};

/// Users, by their ids.
pub struct UserFeed;

impl Feed for UserFeed {
    const SPEC: &'static Spec = &Spec::new(
        "user_feed",
        Trigger::Broadcast(&[routing_key::BID_ACCEPTED, routing_key::CLOSED, routing_key::CANCELLED]),
    );
    type Message = ItemEvent;
    type State = Standings;

    fn topics(event: &ItemEvent) -> Topics {
        match &event.fact {
            Some(Fact::BidAccepted(bid)) => {
                let users = [&bid.bidder_id, &bid.outbid_user_id];
                Topics::These(users.into_iter().filter(|user| !user.is_empty()).cloned().collect())
            }
            // An end concerns all who bid, and the event does not say who they were.
            Some(Fact::Closed(_) | Fact::Cancelled(_)) => Topics::AllWatched,
            Some(Fact::Created(_) | Fact::Started(_)) | None => Topics::These(Vec::new()),
        }
    }

    async fn load(io: &Io, user: &str) -> Result<Standings> {
        let items = sql::followed(io, user, (WON_WITHIN_DAYS, LOST_WITHIN_DAYS), MOST as i64).await?;
        Standings::of(user, &items, crate::schema::bid_ceiling_minor(io))
    }

    fn apply(standings: &mut Standings, user: &str, event: &ItemEvent) -> bool {
        standings.apply(user, event)
    }

    fn reconcile(standings: &mut Standings, loaded: Standings) -> Reconciled {
        standings.reconcile(loaded)
    }
}

/// `UserService.WatchUser`.
pub struct WatchUser;

impl rpc::StreamHandler for WatchUser {
    const SPEC: &'static Spec = &Spec::new("watch_user", Trigger::Rpc("gavel.v1.UserService/WatchUser"))
        .limits(Limits::DEFAULT.concurrency(10_000));
    const ACCESS: Access = Access::Authenticated;
    type Request = v1::WatchUserRequest;
    type Query = UserId;
    type Reply = WatchUserResponse;

    fn parse(request: v1::WatchUserRequest, caller: Option<&Caller>) -> Result<UserId> {
        own_or_any(&request.user_id, caller)
    }

    async fn handle(io: &Io, user: &UserId, out: &Sink<WatchUserResponse>) -> Result<()> {
        let mut watch = io.watch::<UserFeed>(user.as_str())?;
        let mut told = 0;
        loop {
            let news = watch.next().await?;
            let (counted, frames) = watch.read(|standings| standings.since(told, news));
            told = counted;
            for frame in frames {
                out.send_encoded(frame).await?;
            }
            if news != News::Changed {
                let frame = Frame::Heartbeat(heartbeat(watch.pulse(), 0));
                out.send_encoded(Encoded::of(&WatchUserResponse { frame: Some(frame) })).await?;
            }
        }
    }
}
