//! Everything that can be wrong with an application before anything runs.
use super::{App, Registration, registration::Run};
use crate::{base::spec::Trigger, edge::Contracts};
use std::{collections::BTreeSet, fmt};

/// Everything that is wrong with the registrations, each line naming the handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RegistrationErrors {
    /// One line each.
    pub faults: Vec<String>,
}

impl fmt::Display for RegistrationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handlers can't be registered:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl App {
    /// Checks everything that can be wrong before anything runs.
    ///
    /// # Errors
    /// Names every handler that is registered twice or has an invalid spec, and every method without a handler.
    pub fn checked(self) -> Result<Self, RegistrationErrors> {
        let mut faults = self.faults.clone();
        let mut names = BTreeSet::new();
        let mut routes = BTreeSet::new();
        for Registration { spec, .. } in &self.registrations {
            faults.extend(spec.validate());
            if !names.insert(spec.name) {
                faults.push(format!("handler {:?}: registered twice", spec.name));
            }
            if let Trigger::Rpc(route) | Trigger::Http(route) = spec.trigger
                && !routes.insert(route)
            {
                faults.push(format!("handler {:?}: {route} has a handler already", spec.name));
            }
        }
        faults.extend(channel_faults(&self.registrations));
        if let Some(descriptors) = self.descriptors {
            faults.extend(contract_faults(descriptors, &self.registrations, &self.left_out));
        }
        if faults.is_empty() { Ok(self) } else { Err(RegistrationErrors { faults }) }
    }
}

/// The runner of the crate sqlxmq claims whatever a channel of its holds: each is one registration's, and no handler's
/// kind.
fn channel_faults(registrations: &[Registration]) -> Vec<String> {
    let specs = || registrations.iter().map(|registration| registration.spec);
    let kinds: BTreeSet<_> =
        specs().filter(|spec| matches!(spec.trigger, Trigger::Job(_))).map(|spec| spec.name).collect();
    let (mut faults, mut taken) = (Vec::new(), BTreeSet::new());
    for spec in specs() {
        let Trigger::Sqlxmq(channels) = spec.trigger else { continue };
        if channels.is_empty() {
            faults.push(format!("{:?}: no channels, which means all of them; allowed: those of its jobs", spec.name));
        }
        for channel in channels {
            if kinds.contains(channel) {
                faults.push(format!(
                    "{:?}: the channel {channel} is the kind of a handler: its jobs would be burned",
                    spec.name
                ));
            }
            if !taken.insert(channel) {
                faults.push(format!("{:?}: the channel {channel} has jobs of the crate sqlxmq already", spec.name));
            }
        }
    }
    faults
}

/// Methods without a handler, handlers without a method, and where the two differ.
fn contract_faults(descriptors: &[u8], registrations: &[Registration], left_out: &[&str]) -> Vec<String> {
    let contracts = match Contracts::read(descriptors) {
        Ok(contracts) => contracts,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut left: BTreeSet<_> = contracts.methods().collect();
    let mut faults = Vec::new();
    for Registration { spec, run } in registrations {
        let (Run::Rpc(method), Trigger::Rpc(name)) = (run, spec.trigger) else { continue };
        left.remove(name);
        match contracts.get(name) {
            None => faults.push(format!("handler {:?}: the contracts have no method {name}", spec.name)),
            Some(contract) => {
                let differs = contract.differs(&(method.request)(), &(method.reply)(), method.streams);
                faults.extend(differs.map(|differs| format!("handler {:?}: {differs}", spec.name)));
            }
        }
    }
    for method in left_out {
        if !left.remove(method) {
            faults.push(format!("method {method} is left out, and has a handler or is none of the contracts'"));
        }
    }
    faults.extend(left.into_iter().map(|method| format!("method {method} has no handler")));
    faults
}
