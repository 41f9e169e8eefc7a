//! What concerns a user.
use crate::bidctl::{
    client,
    output::{Output, money, optional_time, say, time},
    settings::Settings,
    table::harmless,
};
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use gavel_proto::v1::{self, watch_user_response::Frame};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub(crate) enum User {
    /// Show where a user stands, then each notice as it comes
    Watch(Watch),
}

#[derive(Args)]
pub(crate) struct Watch {
    /// Whose, the caller's own where left out. With --user, the development token is minted with role ops for this
    of: Option<String>,
}

impl User {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let Self::Watch(watch) = self;
        watch.run(settings, output).await
    }
}

impl Watch {
    async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::UserServiceClient::new(client::config(settings)?);
        let token = settings.token(if self.of.is_some() { "ops" } else { "bidder" })?;
        let request = v1::WatchUserRequest { user_id: self.of.clone().unwrap_or_default() };
        let stream = client.watch_user(client::request(request, Some(&token))).await;
        let mut stream = stream.map_err(|status| client::explained(settings, &status))?.into_inner();
        while let Some(frame) = stream.next().await {
            match frame.map_err(|status| client::explained(settings, &status))?.frame {
                Some(Frame::Snapshot(snapshot)) => show_all(&snapshot, output),
                Some(Frame::Notice(notice)) => show(&notice, output),
                Some(Frame::Heartbeat(_)) | None => {}
            }
        }
        Ok(())
    }
}

fn show_all(snapshot: &v1::UserStandings, output: Output) {
    let header = ["item", "title", "standing", "price", "ends"];
    let json = json!({ "standings": snapshot.standings.iter().map(as_json).collect::<Vec<_>>() });
    let row = |standing: &v1::Standing| {
        let price = money(standing.price_minor, &standing.currency);
        let ends = time(standing.ends_at.as_ref());
        vec![standing.item_id.clone(), standing.title.clone(), word(standing).to_owned(), price, ends]
    };
    let output = Output { compact: true, ..output };
    output.table(&json, &header, &snapshot.standings.iter().map(row).collect::<Vec<_>>());
}

fn show(notice: &v1::UserNotice, output: Output) {
    let standing = notice.standing.clone().unwrap_or_default();
    if output.json {
        let notice = json!({
            "event_id": notice.event_id, "kind": notice.kind().as_str_name(), "standing": as_json(&standing),
            "due_minor": notice.due_minor, "occurred_at": optional_time(notice.occurred_at.as_ref()),
        });
        return say!("{}", json!({ "notice": notice }));
    }
    let what = match notice.kind() {
        v1::NoticeKind::Outbid => format!("outbid at {}", money(standing.price_minor, &standing.currency)),
        v1::NoticeKind::Won => format!("won for {}", money(standing.price_minor, &standing.currency)),
        v1::NoticeKind::PaymentDue => format!("{} are due", money(notice.due_minor, &standing.currency)),
        v1::NoticeKind::Lost => format!("lost: it went for {}", money(standing.price_minor, &standing.currency)),
        v1::NoticeKind::Cancelled => "cancelled: nobody wins it".to_owned(),
        v1::NoticeKind::Unspecified => "something of a newer version".to_owned(),
    };
    say!("{} {what}: {} {}", time(notice.occurred_at.as_ref()), standing.item_id, harmless(&standing.title));
}

fn word(standing: &v1::Standing) -> &'static str {
    match standing.status() {
        v1::StandingStatus::Leading => "leading",
        v1::StandingStatus::Outbid => "outbid",
        v1::StandingStatus::Won => "won",
        v1::StandingStatus::Lost => "lost",
        v1::StandingStatus::Cancelled => "cancelled",
        v1::StandingStatus::Unspecified => "?",
    }
}

fn as_json(standing: &v1::Standing) -> Value {
    json!({
        "item_id": standing.item_id, "title": standing.title, "version": standing.version,
        "status": standing.status().as_str_name(), "currency": standing.currency, "price_minor": standing.price_minor,
        "next_minimum_minor": standing.next_minimum_minor, "ends_at": optional_time(standing.ends_at.as_ref()),
    })
}
