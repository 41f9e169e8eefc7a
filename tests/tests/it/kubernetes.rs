//! ops/k8s as it is rendered: every field is one that Kubernetes knows, and what must hold between its parts does. `cargo
//! xtask k8s` runs it on a real control plane.
use gavel_tests::process::binary;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// What one process takes at PostgreSQL by default, and what all of them may take together with ten pods to spare.
const SERVICE_CONNECTIONS: u64 = 28;
const WORKER_CONNECTIONS: u64 = 33;
const MAX_CONNECTIONS: u64 = 400;

fn rendered(overlay: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../ops/k8s/rendered/{overlay}.yaml"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let objects: Vec<_> = serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|object| !object.is_null())
        .collect();
    assert!(objects.len() > 10, "{overlay} has {} objects", objects.len());
    objects
}

fn overlays() -> [(&'static str, Vec<Value>); 2] {
    ["production", "staging"].map(|overlay| (overlay, rendered(overlay)))
}

fn text<'a>(object: &'a Value, at: &str) -> &'a str {
    object.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn name(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert!(!found.is_empty(), "there is no {kind}");
    found
}

/// Deployments and Jobs: what has pods.
fn with_pods(objects: &[Value]) -> Vec<&Value> {
    let found: Vec<_> = objects.iter().filter(|object| matches!(text(object, "/kind"), "Deployment" | "Job")).collect();
    assert_eq!(found.len(), 4, "migrate, bid-service, bid-worker, backfills");
    found
}

fn container(object: &Value) -> &Value {
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array).expect("containers");
    assert_eq!(containers.len(), 1, "{}", name(object));
    &containers[0]
}

fn list<'a>(object: &'a Value, at: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(at).and_then(Value::as_array).into_iter().flatten()
}

#[test]
fn what_is_rendered_is_of_the_overlays_as_they_are() {
    let checked = Command::new(binary("xtask")).args(["k8s", "--check"]).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Everything that stands there is still there once it was read as what it claims to be.
fn is_known<T: Serialize + DeserializeOwned>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{}: {error}", name(object)));
    let known = serde_json::to_value(read).expect("JSON");
    for (at, value) in leaves(object, String::new()) {
        let kept = known.pointer(&at).unwrap_or(&Value::Null);
        // A quantity and a port are kept as they are written.
        assert_eq!(kept, value, "{}: Kubernetes knows no {at}", name(object));
    }
}

fn leaves(value: &Value, at: String) -> Vec<(String, &Value)> {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().flat_map(|(key, value)| leaves(value, format!("{at}/{}", escaped(key)))).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().flat_map(|(n, value)| leaves(value, format!("{at}/{n}"))).collect()
        }
        _ => vec![(at, value)],
    }
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for (overlay, objects) in overlays() {
        let mut checked = 0;
        for object in &objects {
            match text(object, "/kind") {
                "Namespace" => is_known::<Namespace>(object),
                "ServiceAccount" => is_known::<ServiceAccount>(object),
                "ConfigMap" => is_known::<ConfigMap>(object),
                "Service" => is_known::<Service>(object),
                "Deployment" => is_known::<Deployment>(object),
                "Job" => is_known::<Job>(object),
                "PodDisruptionBudget" => is_known::<PodDisruptionBudget>(object),
                "HorizontalPodAutoscaler" => is_known::<HorizontalPodAutoscaler>(object),
                "NetworkPolicy" => is_known::<NetworkPolicy>(object),
                // Others' kinds: `cargo xtask k8s` applies them strictly.
                "ScaledObject"
                | "TriggerAuthentication"
                | "Gateway"
                | "HTTPRoute"
                | "Certificate"
                | "PodMonitor"
                | "PrometheusRule" => continue,
                other => panic!("{other} is new here"),
            }
            checked += 1;
        }
        assert!(checked > 15, "{overlay}: {checked}");
    }
}

#[test]
#[should_panic(expected = "Kubernetes knows no /spec/replica")]
fn a_field_that_is_spelled_wrong_is_found() {
    is_known::<Deployment>(&serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "x" },
        "spec": { "replica": 2, "selector": {}, "template": {} },
    }));
}

#[test]
fn selectors_hit_pods() {
    for (overlay, objects) in overlays() {
        let labels: Vec<BTreeMap<String, String>> = with_pods(&objects)
            .iter()
            .map(|object| {
                serde_json::from_value(object["spec"]["template"]["metadata"]["labels"].clone()).expect("labels")
            })
            .collect();
        let hit = |object: &Value, at: &str| {
            let selector = object.pointer(at).unwrap_or_else(|| panic!("{} has {at}", name(object)));
            // A Service's is the labels themselves.
            let wanted = selector.get("matchLabels").unwrap_or(selector);
            let wanted: BTreeMap<String, String> = match selector.get("matchExpressions") {
                Some(_) if selector.get("matchLabels").is_none() => BTreeMap::new(),
                _ => serde_json::from_value(wanted.clone()).expect("labels"),
            };
            let expressed = |own: &BTreeMap<String, String>| {
                list(selector, "/matchExpressions").all(|expression| {
                    assert_eq!(expression["operator"], "In");
                    let value = own.get(text(expression, "/key"));
                    list(expression, "/values").any(|one| value.map(String::as_str) == one.as_str())
                })
            };
            let hits = labels
                .iter()
                .filter(|own| wanted.iter().all(|(key, value)| own.get(key) == Some(value)) && expressed(own));
            assert!(hits.count() > 0, "{overlay}: {} hits no pod", name(object));
        };
        for kind in ["Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"] {
            for object in of_kind(&objects, kind) {
                let at = match kind {
                    "NetworkPolicy" => "/spec/podSelector",
                    _ => "/spec/selector",
                };
                hit(object, at);
            }
        }
        for object in objects.iter().filter(|object| object["kind"] == "PodMonitor") {
            hit(object, "/spec/selector");
        }
        for object in objects.iter().filter(|o| matches!(text(o, "/kind"), "ScaledObject" | "HorizontalPodAutoscaler"))
        {
            let target = text(object, "/spec/scaleTargetRef/name");
            let is_there = of_kind(&objects, "Deployment").iter().any(|one| text(one, "/metadata/name") == target);
            assert!(is_there, "{overlay}: {} scales {target}, which is not there", name(object));
        }
    }
}

#[test]
fn a_pod_has_the_time_that_its_drain_takes() {
    for (overlay, objects) in overlays() {
        for deployment in of_kind(&objects, "Deployment") {
            let settings = environment(deployment, &objects);
            let ms = |name: &str| settings.get(name).map_or(0, |value| value.parse::<u64>().expect("milliseconds"));
            let (grace, delay) = (ms("GAVEL_GRACE_MS"), ms("GAVEL_DRAIN_DELAY_MS"));
            let killed =
                deployment.pointer("/spec/template/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
            let killed_ms = killed.expect("a time to end") * 1_000;
            assert!(grace > 0 && delay < grace && grace < killed_ms, "{overlay}: {}", name(deployment));
        }
    }
}

/// A container's variables, those of its ConfigMap too.
fn environment(object: &Value, objects: &[Value]) -> BTreeMap<String, String> {
    let container = container(object);
    let mut all = BTreeMap::new();
    for from in list(container, "/envFrom") {
        let wanted = text(from, "/configMapRef/name");
        let found = of_kind(objects, "ConfigMap").into_iter().find(|map| text(map, "/metadata/name") == wanted);
        let data: BTreeMap<String, String> =
            serde_json::from_value(found.unwrap_or_else(|| panic!("there is no {wanted}"))["data"].clone())
                .expect("data");
        all.extend(data);
    }
    for variable in list(container, "/env") {
        all.insert(text(variable, "/name").to_owned(), text(variable, "/value").to_owned());
    }
    all
}

#[test]
fn every_variable_is_a_setting_of_its_program() {
    for (_, objects) in overlays() {
        for object in with_pods(&objects) {
            let program = text(container(object), "/command/0").strip_prefix("/bin/").expect("a program of the image");
            let help = Command::new(binary(program)).arg("--help").output().expect("its help").stdout;
            let help = String::from_utf8(help).expect("text");
            for variable in environment(object, &objects).keys().filter(|name| *name != "TOKIO_WORKER_THREADS") {
                let setting = variable.trim_end_matches("_FILE");
                let is_known = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == setting);
                assert!(is_known, "{}: {program} knows no {variable}", name(object));
            }
        }
    }
}

#[test]
fn all_pods_run_one_image_as_nobody_in_particular_and_hold_their_own_secrets() {
    for (overlay, objects) in overlays() {
        let images: BTreeSet<_> = with_pods(&objects).iter().map(|object| text(container(object), "/image")).collect();
        assert_eq!(images.len(), 1, "{overlay}: {images:?}");
        assert!(images.iter().all(|image| image.contains(':') && !image.ends_with(":latest")), "{images:?}");
        for object in with_pods(&objects) {
            // What the network lets nothing to and nothing from, unless it is listed.
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/part-of"], "gavel", "{}", name(object));
            let pod = object.pointer("/spec/template/spec").expect("a pod");
            let own = container(object);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{}", name(object));
            assert_eq!(pod["securityContext"]["runAsUser"], 10_001, "{}", name(object));
            assert_eq!(pod["automountServiceAccountToken"], false, "{}", name(object));
            assert_eq!(own["securityContext"]["readOnlyRootFilesystem"], true, "{}", name(object));
            assert_eq!(own["securityContext"]["capabilities"]["drop"][0], "ALL", "{}", name(object));
            assert!(own["resources"]["limits"]["memory"].is_string(), "{}", name(object));
            let secrets: Vec<_> = list(pod, "/volumes").map(|volume| text(volume, "/secret/secretName")).collect();
            let expected: &[_] = match text(object, "/metadata/name") {
                "bid-service" => &["gavel-service", "gavel-token-keys"],
                "bid-worker" => &["gavel-worker"],
                _ => &["gavel-migrator"],
            };
            assert_eq!(secrets, expected, "{}", name(object));
            let ports: BTreeSet<_> = list(own, "/ports").map(|port| text(port, "/name")).collect();
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = text(own, &format!("/{probe}/httpGet/port"));
                assert!(object["kind"] == "Job" || ports.contains(port), "{} has no port {port}", name(object));
            }
        }
    }
}

#[test]
fn at_their_most_all_pods_have_their_connections() {
    for (overlay, objects) in overlays() {
        let most =
            |kind: &str, at: &str| of_kind(&objects, kind)[0].pointer(at).and_then(Value::as_u64).expect("a number");
        // One more of each while a version is rolled out; backfills are a worker.
        let services = most("HorizontalPodAutoscaler", "/spec/maxReplicas") + 1;
        let workers = most("ScaledObject", "/spec/maxReplicaCount") + 1 + 1;
        let connections = services * SERVICE_CONNECTIONS + workers * WORKER_CONNECTIONS;
        assert!(connections < MAX_CONNECTIONS, "{overlay}: {connections} connections");
        assert!(most("ScaledObject", "/spec/minReplicaCount") >= 1, "{overlay}: nobody would relay events");
    }
}

#[test]
fn a_version_is_rolled_out_without_fewer_pods_than_before() {
    for (_, objects) in overlays() {
        for deployment in of_kind(&objects, "Deployment") {
            let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
            assert_eq!(
                (&rolling["maxUnavailable"], &rolling["maxSurge"]),
                (&0.into(), &1.into()),
                "{}",
                name(deployment)
            );
            let scaled = text(deployment, "/metadata/name") != "backfills";
            assert_eq!(deployment["spec"].get("replicas").is_none(), scaled, "an autoscaler says how many, or nobody");
        }
    }
}

#[test]
fn what_strangers_reach_is_the_public_port_of_the_services() {
    for (_, objects) in overlays() {
        for route in objects.iter().filter(|object| object["kind"] == "HTTPRoute") {
            for rule in list(route, "/spec/rules") {
                for target in list(rule, "/backendRefs") {
                    assert_eq!((text(target, "/name"), &target["port"]), ("bid-service", &8080.into()));
                    assert_eq!(text(rule, "/timeouts/request"), "0s", "a watcher's stream is never cut");
                }
                for found in list(rule, "/matches") {
                    let path = text(found, "/path/value").trim_start_matches("/api");
                    let listed = ["/gavel.v1.ItemService", "/gavel.v1.BidService", "/gavel.v1.UserService", "/items"];
                    assert!(listed.contains(&path), "{path}");
                }
            }
        }
    }
}

#[test]
fn what_runbooks_ask_for_is_there() {
    let objects = rendered("production");
    let pods: BTreeSet<_> = with_pods(&objects)
        .into_iter()
        .map(|object| text(object, "/spec/template/metadata/labels/app.kubernetes.io~1name").to_owned())
        .collect();
    let deployments: BTreeSet<_> =
        of_kind(&objects, "Deployment").into_iter().map(|object| text(object, "/metadata/name").to_owned()).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/runbooks");
    let (mut asked, word) = (0, |text: &str| text.split(['`', ' ', '\n']).next().unwrap_or_default().to_owned());
    for path in fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path()) {
        let book = fs::read_to_string(&path).expect("text");
        for rest in book.split("kubectl ").skip(1) {
            assert!(rest.starts_with("-n gavel "), "{}: kubectl {}", path.display(), word(rest));
        }
        for label in book.split("app.kubernetes.io/name=").skip(1).map(word) {
            assert!(pods.contains(&label), "{}: no pod is a {label}; there are {pods:?}", path.display());
            asked += 1;
        }
        for deployment in book.split("deployment/").skip(1).map(word) {
            assert!(deployments.contains(&deployment), "{}: there is no {deployment}", path.display());
            asked += 1;
        }
    }
    assert!(asked > 2, "runbooks name nothing");
}
