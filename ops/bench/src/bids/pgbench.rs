//! The baseline: the naive transaction of one bid, by pgbench, on the same tables.
use anyhow::{Context, bail};
use std::{fs, path::Path, process::Command};

/// Lock, insert, update, outbox: a transaction and six round trips for each bid.
const NAIVE: &str = "\\set n random(1, :items)
BEGIN;
SELECT version AS version, coalesce(price_minor, 1000000) AS price, item_id AS item FROM items
  WHERE item_id = ('00000000-0000-4000-8000-' || lpad(to_hex(:n::int), 12, '0'))::uuid FOR UPDATE \\gset
INSERT INTO bids (bid_id, item_id, sequence, bidder_id, max_amount_minor, decided_at)
  VALUES (gen_random_uuid(), :item::uuid, :version::bigint + 1, 'bidder-1', :price::bigint + 1000, clock_timestamp());
UPDATE items SET price_minor = :price::bigint + 1000, leader_id = 'bidder-1', bid_count = bid_count + 1,
                 version = :version::bigint + 1
  WHERE item_id = :item::uuid;
INSERT INTO outbox (event_id, shard, key, version, routing_key, message_type, payload, correlation_id, traceparent)
  VALUES (gen_random_uuid(), 1, :item::uuid::text, :version::bigint + 1, 'bid.accepted', 'gavel.events.v1.ItemEvent',
          decode(repeat('00', 220), 'hex'), gen_random_uuid()::text, gen_random_uuid()::text);
COMMIT;
";

/// What pgbench said.
pub(crate) struct Naive {
    pub(crate) per_second: f64,
    pub(crate) latency_ms: f64,
}

pub(crate) fn run(url: &str, scratch: &str, items: u32, clients: u32, seconds: u32) -> anyhow::Result<Naive> {
    let script = Path::new(scratch).join("naive.sql");
    fs::write(&script, NAIVE)?;
    let output = Command::new("pgbench")
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string(), "-T", &seconds.to_string()])
        .args(["-D", &format!("items={items}"), "-f"])
        .arg(&script)
        .arg(url)
        .output()
        .context("pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let figure = |before: &str| -> anyhow::Result<f64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(before)).with_context(|| format!("no {before}"))?;
        Ok(rest.split_whitespace().next().context("no figure")?.parse()?)
    };
    Ok(Naive { per_second: figure("tps = ")?, latency_ms: figure("latency average = ")? })
}
