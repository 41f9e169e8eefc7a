//! Whatever bytes come as a request, the answer is an error of the caller's and never one of ours. The corpus is in
//! `tests/corpus`; each run changes its entries at random, and says which bytes did it when one finds something.
use futures_util::{StreamExt, stream};
use gavel_proto::DESCRIPTORS;
use gavel_runtime::testing::Requests;
use gavel_tests::System;
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use prost::Message;
use reqwest::Client;
use std::{fs, path::Path};

/// Requests for each method.
const TRIES: usize = 40;
/// Requests that are read without a server, each as one of every method.
const READ: usize = 1_000;
/// Calls at the same time.
const AT_ONCE: usize = 16;

fn corpus() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).expect("the corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// Bytes of the corpus with some of them changed, cut off, or followed by others; or any bytes at all.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let corpus = corpus();
    let changes = vec((any::<usize>(), any::<u8>()), 0..4);
    (0..corpus.len() + 1, changes, any::<usize>(), vec(any::<u8>(), 0..24)).prop_map(
        move |(which, changes, cut, tail)| {
            let Some(seed) = corpus.get(which) else { return tail };
            let mut bytes = seed.clone();
            for (at, byte) in changes {
                if let Some(place) = at.checked_rem(bytes.len()).and_then(|at| bytes.get_mut(at)) {
                    *place = byte;
                }
            }
            bytes.truncate(cut % (bytes.len() * 2 + 1));
            if cut % 3 == 0 {
                bytes.extend(tail);
            }
            bytes
        },
    )
}

/// As `cargo xtask fuzz` does for as long as it is let, but without being led by what the bytes reach.
#[test]
fn any_bytes_are_read_or_are_an_error_of_whoever_sent_them() {
    let requests = Requests::of(&gavel::app()).expect("the contracts");
    let good: usize = corpus().iter().map(|entry| requests.read(entry)).sum();
    assert!(good > 0, "no entry of the corpus is a request of any method");
    let (mut runner, strategy) = (TestRunner::default(), bytes());
    for _ in 0..READ {
        requests.read(&strategy.new_tree(&mut runner).expect("bytes").current());
    }
}

#[tokio::test]
async fn no_bytes_are_an_error_of_ours() {
    let system = System::new().await;
    let (service, _) = system.service_with(&[("GAVEL_CALLS_PER_CALLER", "0")]).await;
    let base = format!("http://{}", service.address().await);
    let contracts = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("the contracts");
    let methods = contracts.file.iter().flat_map(|file| {
        let methods = file.service.iter().flat_map(|service| {
            let unary = service.method.iter().filter(|method| !method.server_streaming());
            unary.map(|method| format!("{}/{}", service.name(), method.name()))
        });
        methods.map(|method| format!("{}.{method}", file.package())).collect::<Vec<_>>()
    });
    let (mut runner, strategy) = (TestRunner::default(), bytes());
    let mut calls = Vec::new();
    for method in methods {
        for n in 0..TRIES {
            let role = ["bidder", "seller", "ops"][n % 3];
            let kind = if n % 4 == 3 { "application/json" } else { "application/proto" };
            let body = strategy.new_tree(&mut runner).expect("bytes").current();
            calls.push((method.clone(), role, kind, body));
        }
    }
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let answers = stream::iter(calls).map(|(method, role, kind, body)| {
        let token = system.token("alice", role);
        let sent = client.post(format!("{base}/{method}")).bearer_auth(token).header("content-type", kind);
        let sent = sent.body(body.clone()).send();
        async move { (sent.await.expect("answered").status().as_u16(), method, body) }
    });
    let mut answers = answers.buffer_unordered(AT_ONCE);
    let mut refused = 0;
    while let Some((status, method, body)) = answers.next().await {
        assert!(status < 500, "{method} answered {status} to {body:?}");
        refused += usize::from(status >= 400);
    }
    assert!(refused > TRIES, "bytes were refused: {refused}");
    assert!(!service.has_ended());
}
