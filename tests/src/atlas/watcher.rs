//! Somebody who watches an item meanwhile, and comes back with what they know whenever the stream ends.
use super::fleet::Fleet;
use crate::{System, eventually, watching::follow};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

/// Before they come back.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Watcher<'a> {
    fleet: &'a Fleet<'a>,
    item: watch::Receiver<String>,
    known: AtomicI64,
    wrong: Mutex<Vec<String>>,
}

impl<'a> Watcher<'a> {
    /// Of the item that will be named.
    pub fn new(fleet: &'a Fleet<'a>, item: watch::Receiver<String>) -> Self {
        Self { fleet, item, known: AtomicI64::new(0), wrong: Mutex::default() }
    }

    /// Watches on and on.
    pub async fn run(&self) {
        let Ok(item_id) = self.item.clone().wait_for(|item| !item.is_empty()).await.map(|item| item.clone()) else {
            return std::future::pending().await;
        };
        loop {
            let api = self.fleet.api().await;
            let followed =
                follow(&api, &item_id, self.known.load(Relaxed), |version| self.known.store(version, Relaxed));
            if let Err(wrong) = followed.await {
                self.wrong.lock().expect("nobody panics here").push(wrong);
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until they know what there is.
    pub async fn knows_the_newest(&self, system: &System) {
        let item_id = self.item.borrow().clone();
        let newest = system.count(&format!("SELECT version FROM items WHERE item_id = '{item_id}'")).await;
        eventually(
            "who watches knows the newest version",
            || async { self.known.load(Relaxed) },
            |known| *known == newest,
        )
        .await;
    }

    /// What they saw that must not be.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("nobody panics here").clone()
    }
}
