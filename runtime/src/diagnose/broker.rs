//! What the broker says: is each queue there, as it should be, and does anybody consume it?
use super::Finding;
use crate::{
    Runtime,
    rabbitmq::{self, Channel},
};

/// Looks at every queue, and at what is parked.
pub(super) async fn look(runtime: &Runtime, has_database: bool) -> anyhow::Result<Vec<Finding>> {
    let connection = runtime.broker().connect("doctor").await?;
    let topology = runtime.topology();
    let (mut findings, mut parked) = (Vec::new(), 0);
    for queue in topology.queue_names() {
        let what = format!("queue {queue}");
        let (waiting, consumers) = match rabbitmq::look(&connection, &queue).await {
            Ok(found) => found,
            Err(error) => {
                findings.push(Finding::new(what, false, format!("{error:#}; a worker declares it")));
                continue;
            }
        };
        if queue == topology.parking_queue() {
            parked = i64::from(waiting);
        }
        if consumers == 0 {
            findings.push(Finding::new(what, false, format!("nobody consumes it, and {waiting} messages wait")));
            continue;
        }
        let channel = Channel::open(&connection, "diagnose").await?;
        match topology.declare_own_queue(&channel, &queue).await {
            Ok(()) => {
                findings.push(Finding::new(what, true, format!("{consumers} consumers, {waiting} messages wait")));
            }
            Err(error) => findings.push(Finding::new(what, false, error.message().to_owned())),
        }
        channel.close("looked").await.ok();
    }
    connection.close(200, "done".into()).await.ok();
    if has_database {
        // Those on the broker are on their way into the table.
        let kept =
            sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM (SELECT FROM parked_messages LIMIT 10001) p"#);
        let count = parked + kept.fetch_one(&runtime.pools().reads).await?;
        findings.push(Finding::new("parked messages", count == 0, count.to_string()));
    }
    Ok(findings)
}

/// Messages that wait for a consumer.
pub(super) async fn waiting(runtime: &Runtime, consumer: &str) -> anyhow::Result<u32> {
    let connection = runtime.broker().connect("diagnose").await?;
    let found = rabbitmq::look(&connection, &runtime.topology().queue(consumer)).await;
    connection.close(200, "done".into()).await.ok();
    match found {
        Ok((waiting, _)) => Ok(waiting),
        Err(error) if error.chain().any(|cause| cause.to_string().contains("NOT_FOUND")) => Ok(0),
        Err(error) => Err(error),
    }
}
