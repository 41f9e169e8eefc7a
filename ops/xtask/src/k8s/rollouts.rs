//! A first deploy, an eviction, a new version, one that does not start, the way back, and the autoscaler's bounds.
use super::{NAMESPACE, Run, eventually, step};
use crate::progress::run_quietly;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// What was seen of a Deployment while it was rolled out.
#[derive(Default)]
struct Seen {
    least_ready: Option<i64>,
    most_pods: i64,
    /// Of services the new ones, before workers were done.
    too_early: bool,
}

impl Run {
    pub(super) fn first_deploy(&self) -> anyhow::Result<()> {
        step("the first deploy: the schema first, then workers, then services", || {
            let began = Instant::now();
            run_quietly(&mut self.deploy("one", &[]))?;
            let job = self.kubectl.get(&["job", "migrate", "--namespace", NAMESPACE])?;
            let migrated = job["status"]["completionTime"].as_str().context("it was migrated")?.to_owned();
            for deployment in ["bid-worker", "bid-service", "backfills"] {
                let made = self.kubectl.get(&["deployment", deployment, "--namespace", NAMESPACE])?;
                let made = made["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
                ensure!(
                    migrated <= made,
                    "{deployment} was made at {made}, before the migration was done at {migrated}"
                );
            }
            // Its least, which the autoscaler sees to without knowing of any processor.
            eventually("two services are ready", || Ok(self.number("bid-service", "/status/readyReplicas")? == 2))?;
            let done = began.elapsed().as_secs_f64();
            Ok(format!("deployed in {done:.0} s; no Deployment is older than the migration's end"))
        })
    }

    pub(super) fn evict(&self) -> anyhow::Result<()> {
        step("evicting services, one after the other", || {
            let pods = self.kubectl.get(&[
                "pods",
                "--namespace",
                NAMESPACE,
                "--selector",
                "app.kubernetes.io/name=bid-service",
            ])?;
            let names: Vec<_> = pods["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|pod| pod["metadata"]["name"].as_str())
                .collect();
            let [first, second, ..] = names[..] else { bail!("two services: {names:?}") };
            self.eviction(first)?;
            let refused = self.eviction(second).err().context("the second is refused")?.to_string();
            ensure!(refused.contains("disruption budget"), "{refused}");
            eventually("two are ready again", || {
                let gone = self.kubectl.run(&["get", "pod", first, "--namespace", NAMESPACE]).is_err();
                Ok(gone && self.number("bid-service", "/status/readyReplicas")? == 2)
            })?;
            Ok("the second eviction was refused until the first had a successor".to_owned())
        })
    }

    fn eviction(&self, pod: &str) -> anyhow::Result<()> {
        let eviction = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": NAMESPACE },
        });
        let mut kubectl = self.kubectl.command();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        kubectl.args(["create", "--raw", &path, "--filename", "-"]);
        super::kubectl::piped(&mut kubectl, &eviction.to_string()).map(drop)
    }

    pub(super) fn roll(&self) -> anyhow::Result<()> {
        step("rolling out a new version", || {
            let seen = self.watched_deploy("two")?;
            ensure!(seen.least_ready >= Some(2), "there were fewer services than two: {:?}", seen.least_ready);
            ensure!(seen.most_pods <= 3, "there were {} services at once, more than one beyond two", seen.most_pods);
            ensure!(!seen.too_early, "services were new before the workers were");
            Ok(format!(
                "never fewer than {:?} ready, never more than {} pods",
                seen.least_ready.unwrap_or(0),
                seen.most_pods
            ))
        })
    }

    /// Deploys, and looks meanwhile.
    fn watched_deploy(&self, tag: &str) -> anyhow::Result<Seen> {
        let image = format!("gavel:{tag}");
        let mut deploy = self.deploy(tag, &[]).stdout(Stdio::null()).spawn()?;
        let mut seen = Seen::default();
        let status = loop {
            let services = self.kubectl.get(&["deployment", "bid-service", "--namespace", NAMESPACE])?;
            let number = |at: &str| services.pointer(at).and_then(Value::as_i64).unwrap_or_default();
            seen.least_ready = Some(seen.least_ready.unwrap_or(i64::MAX).min(number("/status/readyReplicas")));
            seen.most_pods = seen.most_pods.max(number("/status/replicas"));
            if services.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str) == Some(&image) {
                let workers = self.kubectl.get(&["deployment", "bid-worker", "--namespace", NAMESPACE])?;
                seen.too_early |= workers["status"]["updatedReplicas"] != workers["status"]["replicas"];
            }
            if let Some(status) = deploy.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(150));
        };
        ensure!(status.success(), "the deploy failed: {status}");
        Ok(seen)
    }

    pub(super) fn fail_and_go_back(&self) -> anyhow::Result<()> {
        step("a version that does not start, and the way back", || {
            let mut deploy = self.deploy("broken", &[]);
            let failed = run_quietly(deploy.env("TIMEOUT", "15s")).err().context("the deploy fails")?.to_string();
            ensure!(failed.contains("its pods of before go on"), "{failed}");
            ensure!(self.number("bid-worker", "/status/readyReplicas")? >= 1, "the workers of before are gone");
            ensure!(self.number("bid-service", "/status/readyReplicas")? == 2, "the services of before are gone");
            ensure!(self.image("bid-service")? == "gavel:two", "services were touched");
            run_quietly(&mut self.deploy("broken", &["--back"]))?;
            self.runs("gavel:two")?;
            run_quietly(&mut self.deploy("two", &["--back"]))?;
            self.runs("gavel:one")?;
            // What a way back has set is no obstacle to the next deploy.
            run_quietly(&mut self.deploy("two", &[]))?;
            self.runs("gavel:two")?;
            Ok("the deploy stopped at the workers, all pods of before ready; back to them, and to the version before"
                .to_owned())
        })
    }

    fn image(&self, deployment: &str) -> anyhow::Result<String> {
        let found = self.kubectl.get(&["deployment", deployment, "--namespace", NAMESPACE])?;
        let image = found.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
        Ok(image.context("an image")?.to_owned())
    }

    fn runs(&self, image: &str) -> anyhow::Result<()> {
        for deployment in ["bid-service", "bid-worker", "backfills"] {
            let found = self.image(deployment)?;
            ensure!(found == image, "{deployment} runs {found} and not {image}");
        }
        Ok(())
    }

    pub(super) fn keep_within_bounds(&self) -> anyhow::Result<()> {
        step("the autoscaler's bounds of the service", || {
            for (asked, kept) in [("1", 2), ("9", 6)] {
                self.kubectl.run(&[
                    "scale",
                    "deployment/bid-service",
                    "--namespace",
                    NAMESPACE,
                    "--replicas",
                    asked,
                ])?;
                eventually("the replicas are within its bounds", || {
                    Ok(self.number("bid-service", "/spec/replicas")? == kept)
                })?;
            }
            self.kubectl.run(&["scale", "deployment/bid-service", "--namespace", NAMESPACE, "--replicas", "2"])?;
            eventually("two are ready", || {
                Ok(self.number("bid-service", "/status/replicas")? == 2
                    && self.number("bid-service", "/status/readyReplicas")? == 2)
            })?;
            Ok("1 became 2, and 9 became 6".to_owned())
        })
    }
}
