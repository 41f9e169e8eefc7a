//! Who may do what: every method, every kind of caller.
use chrono::{TimeDelta, Utc};
use gavel::schema::WIDE_BID_AMOUNTS;
use gavel_proto::{externalscaler as keda, health_v1::HealthCheckRequest, v1};
use gavel_runtime::{auth::Claims, spec::Trigger};
use gavel_tests::{Api, Failure, System, claims, settle};
use poem_grpc::Code;
use std::collections::HashMap;
use uuid::Uuid;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    /// Also without a token.
    Anyone,
    Bidder,
    Seller,
    /// Whom it is about, and operators.
    Oneself,
    Operator,
}

impl Who {
    fn lets(self, user: &str, role: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Bidder => role == "bidder",
            Self::Seller => ["seller", "ops"].contains(&role),
            Self::Oneself => user == "alice" || role == "ops",
            Self::Operator => role == "ops",
        }
    }
}

/// The methods that exist, and who may call each. A method missing here fails the last test.
const METHODS: [(&str, Who); 9] = [
    ("CreateItem", Who::Seller),
    ("CancelItem", Who::Seller),
    ("GetItem", Who::Anyone),
    ("ListItems", Who::Anyone),
    ("WatchItem", Who::Anyone),
    ("PlaceBid", Who::Bidder),
    ("ListBids", Who::Anyone),
    ("GetUserStats", Who::Oneself),
    ("WatchUser", Who::Oneself),
];
const OPERATORS: [&str; 24] = [
    "ListHandlers",
    "ListQueues",
    "PauseQueue",
    "ResumeQueue",
    "ListJobs",
    "GetJob",
    "CancelJob",
    "ListDeadJobs",
    "RetryDeadJobs",
    "DiscardDeadJobs",
    "ListParkedMessages",
    "GetParkedMessage",
    "RetryParkedMessages",
    "DiscardParkedMessages",
    "StartBackfill",
    "PauseBackfill",
    "ResumeBackfill",
    "CancelBackfill",
    "RetuneBackfill",
    "GetBackfill",
    "ListBackfills",
    "WatchBackfill",
    "StartRebuild",
    "GetRebuild",
];
/// Without a token, since KEDA has none.
const SCALER: [&str; 5] = ["IsActive", "StreamIsActive", "GetMetricSpec", "StreamMetricSpec", "GetMetrics"];

/// Without a token either: what a load balancer asks.
const HEALTH: [&str; 2] = ["Check", "Watch"];

async fn call(method: &str, api: &Api, item_id: &str) -> Result<(), Failure> {
    match method {
        "CreateItem" => {
            let request = v1::CreateItemRequest {
                idempotency_key: Uuid::new_v4().to_string(),
                title: "A lamp".to_owned(),
                currency: "EUR".to_owned(),
                start_price_minor: 100,
                starts_at: None,
                ends_at: Some(prost_types::Timestamp { seconds: Utc::now().timestamp() + 3_600, nanos: 0 }),
                ..v1::CreateItemRequest::default()
            };
            api.create_item(request).await.map(drop)
        }
        // An item that there is not: the others are needed by the methods after it.
        "CancelItem" => api.cancel(&Uuid::new_v4().to_string(), "fake").await.map(drop),
        "GetItem" => api.item(item_id).await.map(drop),
        "ListItems" => api.items(v1::ListItemsRequest::default()).await.map(drop),
        "PlaceBid" => api.bid(item_id, 1_000_000).await.map(drop),
        "ListBids" => {
            api.bids(v1::ListBidsRequest { item_id: item_id.to_owned(), ..Default::default() }).await.map(drop)
        }
        "WatchItem" => api.watch_item(item_id, 0).await.map(drop),
        "GetUserStats" => api.stats("alice").await.map(drop),
        "WatchUser" => api.watch_user("alice").await.map(drop),
        other => operate(other, api).await,
    }
}

/// Requests that an operator would get an answer to: no id in them exists.
async fn operate(method: &str, api: &Api) -> Result<(), Failure> {
    let (key, id) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let (ids, kind) = (vec![id.clone()], "none".to_owned());
    macro_rules! ask {
        ($client:ident . $call:ident, $message:expr) => {{
            let (request, seen) = api.request($message);
            settle(api.$client.$call(request).await, &seen).map(drop)
        }};
    }
    match method {
        "ListHandlers" => ask!(ops.list_handlers, v1::ListHandlersRequest {}),
        "ListQueues" => ask!(ops.list_queues, v1::ListQueuesRequest {}),
        "PauseQueue" => {
            ask!(ops.pause_queue, v1::PauseQueueRequest { idempotency_key: key, kind, ..Default::default() })
        }
        "ResumeQueue" => {
            ask!(ops.resume_queue, v1::ResumeQueueRequest { idempotency_key: key, kind, ..Default::default() })
        }
        "ListJobs" => ask!(ops.list_jobs, v1::ListJobsRequest { kind, limit: 1 }),
        "GetJob" => ask!(ops.get_job, v1::GetJobRequest { job_id: id }),
        "CancelJob" => {
            ask!(ops.cancel_job, v1::CancelJobRequest { idempotency_key: key, job_id: id, ..Default::default() })
        }
        "ListDeadJobs" => ask!(ops.list_dead_jobs, v1::ListDeadJobsRequest::default()),
        "RetryDeadJobs" => ask!(
            ops.retry_dead_jobs,
            v1::RetryDeadJobsRequest { idempotency_key: key, job_ids: ids, ..Default::default() }
        ),
        "DiscardDeadJobs" => ask!(
            ops.discard_dead_jobs,
            v1::DiscardDeadJobsRequest { idempotency_key: key, job_ids: ids, ..Default::default() }
        ),
        "ListParkedMessages" => ask!(ops.list_parked_messages, v1::ListParkedMessagesRequest::default()),
        "GetParkedMessage" => ask!(ops.get_parked_message, v1::GetParkedMessageRequest { parked_id: id }),
        "RetryParkedMessages" => ask!(
            ops.retry_parked_messages,
            v1::RetryParkedMessagesRequest { idempotency_key: key, parked_ids: ids, ..Default::default() }
        ),
        "DiscardParkedMessages" => ask!(
            ops.discard_parked_messages,
            v1::DiscardParkedMessagesRequest { idempotency_key: key, parked_ids: ids, ..Default::default() }
        ),
        other => operate_schema(other, api).await,
    }
}

/// The same of the schema, and of those who need no token.
async fn operate_schema(method: &str, api: &Api) -> Result<(), Failure> {
    macro_rules! ask {
        ($client:ident . $call:ident, $message:expr) => {{
            let (request, seen) = api.request($message);
            settle(api.$client.$call(request).await, &seen).map(drop)
        }};
    }
    // A new database has nothing to fill: each of these is refused for that, once it is let in.
    let (idempotency_key, change, reason) = (Uuid::new_v4().to_string(), WIDE_BID_AMOUNTS, "why not".to_owned());
    let queue = HashMap::from([("queue".to_owned(), "close_item".to_owned())]);
    let object = keda::ScaledObjectRef { scaler_metadata: queue, ..Default::default() };
    match method {
        "StartBackfill" => {
            ask!(ops.start_backfill, v1::StartBackfillRequest { idempotency_key, change, reason, tuning: None })
        }
        "PauseBackfill" => ask!(ops.pause_backfill, v1::PauseBackfillRequest { idempotency_key, change, reason }),
        "ResumeBackfill" => ask!(ops.resume_backfill, v1::ResumeBackfillRequest { idempotency_key, change, reason }),
        "CancelBackfill" => ask!(ops.cancel_backfill, v1::CancelBackfillRequest { idempotency_key, change, reason }),
        "RetuneBackfill" => {
            ask!(ops.retune_backfill, v1::RetuneBackfillRequest { idempotency_key, change, reason, tuning: None })
        }
        "GetBackfill" => ask!(ops.get_backfill, v1::GetBackfillRequest { change }),
        "ListBackfills" => ask!(ops.list_backfills, v1::ListBackfillsRequest {}),
        "WatchBackfill" => ask!(ops.watch_backfill, v1::WatchBackfillRequest { change }),
        "StartRebuild" => ask!(ops.start_rebuild, v1::StartRebuildRequest { idempotency_key, reason }),
        "GetRebuild" => ask!(ops.get_rebuild, v1::GetRebuildRequest { rebuild_id: idempotency_key }),
        "IsActive" => ask!(scaler.is_active, object),
        "StreamIsActive" => ask!(scaler.stream_is_active, object),
        "StreamMetricSpec" => ask!(scaler.stream_metric_spec, object),
        "GetMetricSpec" => ask!(scaler.get_metric_spec, object),
        "GetMetrics" => {
            ask!(scaler.get_metrics, keda::GetMetricsRequest { scaled_object_ref: Some(object), ..Default::default() })
        }
        "Check" => ask!(health.check, HealthCheckRequest::default()),
        "Watch" => ask!(health.watch, HealthCheckRequest::default()),
        other => panic!("{other} is not in this table"),
    }
}

fn all() -> impl Iterator<Item = (&'static str, Who)> {
    let anyone = SCALER.into_iter().chain(HEALTH).map(|method| (method, Who::Anyone));
    METHODS.into_iter().chain(OPERATORS.map(|method| (method, Who::Operator))).chain(anyone)
}

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

#[tokio::test]
async fn an_invalid_token_is_refused_by_every_method_and_none_by_those_that_need_one() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item_id = item(&system, &api).await;
    let valid = claims("alice", &["bidder"], 60);
    let forger = System::new().await;
    let callers = [
        ("expired", api.with_token(system.sign(&claims("alice", &["bidder"], -60)))),
        ("another audience's", api.with_token(system.sign(&Claims { aud: "elsewhere".to_owned(), ..valid.clone() }))),
        ("another issuer's", api.with_token(system.sign(&Claims { iss: "stranger".to_owned(), ..valid.clone() }))),
        ("forged", api.with_token(forger.sign(&valid))),
        ("garbage", api.with_token("garbage".to_owned())),
    ];
    for (method, callable_by) in all() {
        for (who, caller) in &callers {
            let failure = call(method, caller, &item_id).await.expect_err("an invalid token is never ignored");
            assert_eq!(failure.code, Code::Unauthenticated, "{method} with a token that is {who}: {failure:?}");
        }
        let anonymous = call(method, &api, &item_id).await.err().map(|failure| failure.code);
        assert_eq!(
            anonymous,
            (callable_by != Who::Anyone).then_some(Code::Unauthenticated),
            "{method} without a token"
        );
    }
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item_id = item(&system, &api).await;
    let callers = [("alice", "nobody"), ("alice", "bidder"), ("mallory", "bidder"), ("sam", "seller"), ("olga", "ops")];
    for (method, callable_by) in all() {
        for (user, role) in callers {
            let caller = api.with_token(system.token(user, role));
            let got = call(method, &caller, &item_id).await.err().map(|failure| failure.code);
            let what = format!("{method} by {user}, {role}: {got:?}");
            if callable_by.lets(user, role) {
                // The second bid of the same amount is refused by the rules; the ids of operators' requests don't
                // exist.
                let answered = matches!(got, None | Some(Code::FailedPrecondition | Code::NotFound));
                assert!(answered, "{what}");
            } else {
                assert_eq!(got, Some(Code::PermissionDenied), "{what}");
            }
        }
    }
}

#[test]
fn no_method_is_missing_from_these_tables() {
    let app = gavel::app();
    let methods = app.registrations().iter().filter_map(|registration| match registration.spec.trigger {
        Trigger::Rpc(method) => method.rsplit('/').next(),
        _ => None,
    });
    let mut registered: Vec<_> = methods.collect();
    registered.sort_unstable();
    let mut covered: Vec<_> = all().map(|(method, _)| method).collect();
    covered.sort_unstable();
    assert_eq!(registered, covered);
}
