//! A third load: what operators do. A queue is paused, a job cancelled, tried again and discarded, and so is a message
//! that nobody can read.
use super::{
    attack::{Attack, Outcome, stops_at_start},
    case::{Action, Case, Site},
    check,
    fleet::Fleet,
    history::{History, until_known},
    listener::Listener,
    scenario::Clients,
};
use crate::{
    Api, Options, System,
    api::{Failure, settle},
    broker::Broker,
    eventually,
    system::CONSUMER_QUEUES,
};
use chrono::TimeDelta;
use gavel_proto::v1;
use std::{sync::Mutex, time::Duration};
use uuid::Uuid;

/// What only operators come by.
const HANDLERS: [&str; 16] = [
    "list_handlers",
    "list_queues",
    "pause_queue",
    "resume_queue",
    "list_jobs",
    "get_job",
    "cancel_job",
    "list_dead_jobs",
    "retry_dead_jobs",
    "discard_dead_jobs",
    "list_parked_messages",
    "get_parked_message",
    "retry_parked_messages",
    "discard_parked_messages",
    "redeliver_message",
    "parking",
];
/// Where a message is parked: the worker's bookkeeping does it.
const PARKED: &str = "bookkeeping.3188a4b2325a";
/// A call that nobody answers by then is a fault of its own.
const GIVES_UP: Duration = Duration::from_mins(1);
const CLOSE: &str = "close_item";
/// What the operator has done, each once: as it is written down.
const DONE: [(&str, i64); 8] = [
    ("pause_queue", 1),
    ("resume_queue", 1),
    ("cancel_job", 3),
    ("retry_dead_jobs", 2),
    ("discard_dead_jobs", 1),
    ("retry_parked_messages", 1),
    ("discard_parked_messages", 3),
    ("cancel_item", 1),
];

/// Who hears of everything.
const CONSUMERS: [&str; 2] = ["apply_user_stats", "project_item"];
/// Longer than any fault of a broker lasts, and what follows.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Whether this load comes by there.
pub fn comes_by(site: &str) -> bool {
    site == PARKED || HANDLERS.iter().any(|handler| site.starts_with(&format!("{handler}.")))
}

/// Where somebody comes by who operates.
pub async fn discover() -> Vec<Site> {
    let outcome = conduct(&[]).await;
    outcome.sites.into_iter().filter(|site| comes_by(&site.name)).collect()
}

pub(super) async fn conduct(faults: &[Case]) -> Outcome {
    let small_disk = faults.iter().any(|fault| fault.action == Action::FullDisk);
    let system = System::with(Options { proxied: true, small_disk, durable: true }).await;
    if small_disk {
        system.spread_rows().await;
    }
    let socket = std::env::temp_dir().join(format!("{}.sock", system.name()));
    let listener = Listener::at(&socket, stops_at_start(faults));
    let fleet = Fleet::start(&system, socket, &[]);
    let mut clients = Clients::new(&system, &fleet);
    let mut attack = Attack::new(listener, &system, &fleet);
    let queues_are_deleted = faults.iter().any(|fault| fault.action == Action::DeleteQueues);
    let operator = Operator { system: &system, fleet: &fleet, queues_are_deleted, history: Mutex::default() };
    let mut message_id = String::new();
    let load = async {
        operator.jobs(&mut clients).await;
        message_id = operator.messages().await;
        let broker = Broker::once_it_is_there(&system.amqp_url).await;
        if queues_are_deleted {
            fleet.make_anew(&broker).await;
        }
        check::quiet(&system, &broker).await;
    };
    let stuck = attack.beside(faults, Box::pin(load)).await;
    let mut violations: Vec<_> = stuck.map(|why| format!("I7: {why}")).into_iter().collect();
    if violations.is_empty() {
        violations = check::of_everything(&system).await;
        // It waits for what the operator decides tomorrow.
        violations.retain(|what| what != check::PARKED);
        violations.extend(wrong(&system, &message_id).await);
    }
    violations.extend(fleet.ended().map(|name| format!("I7: {name} has ended by itself")));
    let mut history = clients.history();
    history.asked_again.extend(operator.history.into_inner().expect("nobody panics here").asked_again);
    let outcome = attack.outcome(history, violations);
    drop(fleet);
    if outcome.violations.is_empty() {
        system.leave().await;
    }
    outcome
}

/// What must not be once all of it is done.
async fn wrong(system: &System, message_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (action, times) in DONE {
        let written = system.count(&format!("SELECT count(*) FROM operator_actions WHERE action = '{action}'")).await;
        if written != times {
            found.push(format!("I5: {action} is written down {written} times, it was done {times}"));
        }
    }
    if system.count(&format!("SELECT count(*) FROM mq_msgs WHERE channel_name = '{CLOSE}'")).await > 0 {
        found.push("I5: a job that was discarded is there".to_owned());
    }
    let kept = "SELECT count(DISTINCT handler) FROM parked_messages WHERE retry_at IS NULL AND message_id =";
    if system.count(&format!("{kept} '{message_id}'")).await != 2 {
        found.push("I5: a message that was to be tried again is lost".to_owned());
    }
    if system.count("SELECT count(*) FROM job_queues WHERE paused_at IS NOT NULL").await > 0 {
        found.push("I5: a queue is paused that goes on".to_owned());
    }
    found
}

/// Calls as one, each call until it is known what became of it.
struct Operator<'a> {
    system: &'a System,
    fleet: &'a Fleet<'a>,
    queues_are_deleted: bool,
    history: Mutex<History>,
}

/// A call of the generated client.
macro_rules! call {
    ($operator:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let told = $operator
            .until_known(stringify!($method), async |api: Api| {
                let (request, seen) = api.request(request.clone());
                settle(api.ops.$method(request).await, &seen)
            })
            .await;
        told.unwrap_or_else(|failure| panic!("{}: {failure:?}", stringify!($method)))
    }};
}

impl Operator<'_> {
    async fn until_known<T>(
        &self,
        handler: &'static str,
        mut call: impl AsyncFnMut(Api) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (token, fleet) = (self.system.token("olga", "ops"), self.fleet);
        let again = async || call(fleet.api().await.with_token(token.clone())).await;
        let (told, unknown) = until_known(GIVES_UP, again).await;
        self.history.lock().expect("nobody panics here").note(handler, unknown);
        told
    }

    /// While its queue stands still a job dies, lives again twice, and is discarded in the end.
    async fn jobs(&self, clients: &mut Clients<'_>) {
        let item = clients.publish("A lamp", TimeDelta::hours(1)).await;
        call!(self, list_handlers, v1::ListHandlersRequest {});
        let (idempotency_key, kind, reason) = (key(), CLOSE.to_owned(), "a try".to_owned());
        call!(self, pause_queue, v1::PauseQueueRequest { idempotency_key, kind, reason });
        let listed = call!(self, list_queues, v1::ListQueuesRequest {});
        assert!(listed.queues.iter().any(|queue| queue.paused_at.is_some()), "{listed:?}");
        let jobs = call!(self, list_jobs, v1::ListJobsRequest { kind: CLOSE.to_owned(), limit: 0 });
        let job_id = jobs.jobs.first().expect("it is to be closed").job_id.clone();
        call!(self, get_job, v1::GetJobRequest { job_id: job_id.clone() });
        for retries in [vec![job_id.clone()], Vec::new()] {
            self.kill_job(&job_id).await;
            let kind = if retries.is_empty() { CLOSE.to_owned() } else { String::new() };
            let request =
                v1::RetryDeadJobsRequest { idempotency_key: key(), job_ids: retries, kind, ..Default::default() };
            assert_eq!(call!(self, retry_dead_jobs, request).count, 1);
        }
        self.kill_job(&job_id).await;
        let request =
            v1::DiscardDeadJobsRequest { idempotency_key: key(), job_ids: vec![job_id], ..Default::default() };
        assert_eq!(call!(self, discard_dead_jobs, request).count, 1);
        let (idempotency_key, kind, reason) = (key(), CLOSE.to_owned(), "a try".to_owned());
        call!(self, resume_queue, v1::ResumeQueueRequest { idempotency_key, kind, reason });
        clients.cancel_as("olga", "ops", &item).await;
    }

    async fn kill_job(&self, job_id: &str) {
        let (idempotency_key, job_id, reason) = (key(), job_id.to_owned(), "a try".to_owned());
        call!(self, cancel_job, v1::CancelJobRequest { idempotency_key, job_id: job_id.clone(), reason });
        let dead = async || call!(self, list_dead_jobs, v1::ListDeadJobsRequest::default()).jobs;
        eventually("it is dead", dead, |dead| dead.iter().any(|job| job.job_id == job_id)).await;
        call!(self, get_job, v1::GetJobRequest { job_id });
    }

    /// Something nobody can read is parked by both consumers, and discarded; of the next, one is told to try again: its
    /// id is given.
    async fn messages(&self) -> String {
        let broker = Broker::once_it_is_there(&self.system.amqp_url).await;
        let depths = || async {
            let of = |queue| broker.depth_if_there(queue);
            [of(CONSUMER_QUEUES[0]).await, of(CONSUMER_QUEUES[1]).await]
        };
        eventually("both consumers are there", depths, |depths| depths.iter().all(Option::is_some)).await;
        let id = key();
        let parked = self.unreadable(&id).await;
        let by_handler = CONSUMERS.map(|handler| (Vec::new(), handler.to_owned()));
        let by_id = (vec![parked[0].parked_id.clone()], String::new());
        for (parked_ids, handler) in [by_id].into_iter().chain(by_handler) {
            let request =
                v1::DiscardParkedMessagesRequest { idempotency_key: key(), parked_ids, handler, ..Default::default() };
            call!(self, discard_parked_messages, request);
        }
        let id = key();
        let parked_id = self.unreadable(&id).await[0].parked_id.clone();
        call!(self, get_parked_message, v1::GetParkedMessageRequest { parked_id: parked_id.clone() });
        let request = v1::RetryParkedMessagesRequest {
            idempotency_key: key(),
            parked_ids: vec![parked_id],
            ..Default::default()
        };
        assert_eq!(call!(self, retry_parked_messages, request).count, 1);
        let is_tried =
            |parked: &Vec<v1::ParkedMessage>| parked_by_both(parked) && parked.iter().all(|one| one.retry_at.is_none());
        eventually("it has been tried again", async || self.parked(&id).await, is_tried).await;
        id
    }

    /// What both consumers park of a message, once they have; more than once, where one did not come to know that it had.
    async fn unreadable(&self, id: &str) -> Vec<v1::ParkedMessage> {
        loop {
            let broker = Broker::once_it_is_there(&self.system.amqp_url).await;
            broker.publish("item.closed", id, b"\xff no protobuf").await;
            let parked = async || self.parked(id).await;
            let parked = eventually("both have parked it", parked, |parked| parked_by_both(parked));
            if !self.queues_are_deleted {
                return parked.await;
            }
            // It was in a queue that somebody deleted.
            if let Ok(parked) = tokio::time::timeout(TOLD_AGAIN_AFTER, parked).await {
                return parked;
            }
        }
    }

    async fn parked(&self, id: &str) -> Vec<v1::ParkedMessage> {
        let all = call!(self, list_parked_messages, v1::ListParkedMessagesRequest::default()).messages;
        all.into_iter().filter(|message| message.message_id == id).collect()
    }
}

fn parked_by_both(parked: &[v1::ParkedMessage]) -> bool {
    CONSUMERS.iter().all(|handler| parked.iter().any(|message| message.handler == *handler))
}

fn key() -> String {
    Uuid::new_v4().to_string()
}
