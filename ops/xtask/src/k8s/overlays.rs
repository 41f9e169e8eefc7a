//! The overlays: rendered for those who have no kubectl, such as CI, and applied as they stand.
use super::kubectl::Kubectl;
use crate::progress::{Step, run_quietly};
use anyhow::{Context, bail};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Those that are kept.
const OVERLAYS: [&str; 2] = ["production", "staging"];
/// Where this run deploys to: production's.
pub(super) const NAMESPACE: &str = "gavel";

fn directory() -> PathBuf {
    crate::root().join("ops/k8s")
}

fn kept(overlay: &str) -> PathBuf {
    directory().join("rendered").join(format!("{overlay}.yaml"))
}

/// Its first line, which changes with whatever it is made from.
fn head(overlay: &str) -> anyhow::Result<String> {
    let sources = "find k8s/base k8s/components k8s/overlays observability/dashboard.json observability/kustomization.yaml \
                   -type f | LC_ALL=C sort | xargs cat | sha256sum";
    let digest = run_quietly(Command::new("sh").args(["-c", sources]).current_dir(crate::root().join("ops")))?;
    let digest = digest.split_whitespace().next().context("a digest")?.to_owned();
    Ok(format!("# Written by `cargo xtask k8s --render` from overlays/{overlay}; sources: {digest}\n"))
}

fn rendered(kubectl: &Path, overlay: &str) -> anyhow::Result<(PathBuf, String)> {
    let text = run_quietly(Command::new(kubectl).arg("kustomize").arg(directory().join("overlays").join(overlay)))?;
    Ok((kept(overlay), head(overlay)? + &text))
}

/// Fails where what is kept was written from other sources: without kubectl.
pub(super) fn check_sources() -> anyhow::Result<()> {
    for overlay in OVERLAYS {
        let file = kept(overlay);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        if !text.starts_with(&head(overlay)?) {
            bail!("{} is out of date: run `cargo xtask k8s --render`", file.display());
        }
    }
    Ok(())
}

/// Writes them.
pub(super) fn render(kubectl: &Path) -> anyhow::Result<()> {
    for overlay in OVERLAYS {
        let (file, text) = rendered(kubectl, overlay)?;
        fs::create_dir_all(file.parent().context("a directory")?)?;
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Fails where what is kept is not what the overlays say.
pub(super) fn check(kubectl: &Path) -> anyhow::Result<()> {
    for overlay in OVERLAYS {
        let (file, text) = rendered(kubectl, overlay)?;
        if fs::read_to_string(&file).unwrap_or_default() != text {
            bail!("{} is out of date: run `cargo xtask k8s --render`", file.display());
        }
    }
    Ok(())
}

/// Every object of every overlay, as the API server takes it, no field unknown to it.
pub(super) fn apply_strictly(kubectl: &Kubectl) -> anyhow::Result<()> {
    let step = Step::begin("applying the overlays strictly, without effect");
    let mut objects = 0;
    for overlay in OVERLAYS {
        let (_, text) = rendered(&kubectl.program, overlay)?;
        let namespace = text.split("\n---\n").find(|one| one.contains("\nkind: Namespace\n")).context("a Namespace")?;
        kubectl.apply_text(namespace, &[])?;
        let said = kubectl.apply_text(&text, &["--dry-run=server", "--validate=strict"])?;
        objects += said.lines().count();
    }
    step.done(format!("{objects} objects of {} overlays accepted", OVERLAYS.len()));
    Ok(())
}

/// Production, with this run's image and what lets it go faster: one worker at least and six at most, two seconds until
/// a pod counts, scaled down at once.
pub(super) fn of_this_run(dir: &Path, tag: &str) -> PathBuf {
    let overlay = dir.join("overlay");
    let up = "../".repeat(overlay.components().count() - 1);
    let production =
        format!("{up}{}", directory().join("overlays/production").display().to_string().trim_start_matches('/'));
    let scaled = json!([
        { "op": "replace", "path": "/spec/minReplicaCount", "value": 1 },
        { "op": "replace", "path": "/spec/maxReplicaCount", "value": 6 },
        { "op": "replace", "path": "/spec/triggers/0/metadata/targetSeconds", "value": "1" },
        { "op": "replace", "path": "/spec/advanced/horizontalPodAutoscalerConfig/behavior", "value": {
            "scaleUp": { "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 5 }] },
            "scaleDown": { "stabilizationWindowSeconds": 5, "policies": [{ "type": "Pods", "value": 2, "periodSeconds": 5 }] },
        } },
        // There is no Prometheus here: what asks it can't be known, and nothing is scaled down then.
        { "op": "remove", "path": "/spec/triggers/3" },
    ]);
    let sooner = json!([{ "op": "replace", "path": "/spec/minReadySeconds", "value": 2 }]);
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [production],
        "images": [{ "name": "registry.example.com/gavel", "newName": "gavel", "newTag": tag }],
        "patches": [
            { "target": { "kind": "ScaledObject" }, "patch": scaled.to_string() },
            { "target": { "kind": "Deployment" }, "patch": sooner.to_string() },
        ],
    });
    let _ = fs::create_dir_all(&overlay);
    let _ = fs::write(overlay.join("kustomization.yaml"), kustomization.to_string());
    overlay
}
