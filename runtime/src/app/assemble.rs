//! What an application's registrations come to in one process: its runtime, and what each of its listeners answers.
use super::{
    App, Registration,
    registration::{Method, Run},
};
use crate::{
    Runtime,
    base::{
        Access,
        spec::{Listener, Trigger},
        tls,
    },
    config::Backends,
    context::{Live, runtime::Role},
    edge::{self, BodyLimits, Contract, Contracts, Dispatch, Method as Mounted},
    rabbitmq::Topology,
    server::Routes,
    triggers::rpc,
};
use poem::Route;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

impl App {
    pub(crate) fn runtime(&self, backends: &Backends, process: &str, role: Role) -> anyhow::Result<Runtime> {
        tls::choose_provider();
        let specs = || self.registrations.iter().map(|registration| registration.spec);
        let topology = Topology::of(self.name, specs());
        let mut live = Live::default();
        for registration in &self.registrations {
            if let Run::Feed(add) = registration.run {
                add(&mut live);
            }
        }
        let schema = (self.migrator, self.evolution.clone());
        Runtime::new(backends, process, role, (topology, self.fingerprint()), schema, specs(), live)
    }

    /// Returns what tells this application's contracts from those of another version: the messages of its calls and
    /// events, and who consumes which.
    fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.descriptors.unwrap_or_default());
        for Registration { spec, run } in &self.registrations {
            let message = if let Run::Message(_, name) = run { name() } else { String::new() };
            hasher.update(format!("{} {} {message}\n", spec.name, spec.trigger));
        }
        let head = hasher.finalize().iter().take(8).fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
        format!("{head:016x}")
    }

    /// Returns what the public is answered, and what operators are: all of that, and what is theirs alone.
    pub(crate) fn routes(&self, runtime: &Runtime, bodies: &BodyLimits) -> anyhow::Result<(Routes, Routes)> {
        let contracts = self.descriptors.map(Contracts::read).transpose()?;
        let (mut public, mut operators) = (Mounting::new(runtime), Mounting::new(runtime));
        for registration in &self.registrations {
            let is_public = registration.spec.listener == Listener::Public;
            let sides = [is_public.then_some(&mut public), Some(&mut operators)].into_iter().flatten();
            match (registration.run, registration.spec.trigger, &contracts) {
                (Run::Http(mount), ..) => sides.for_each(|side| side.route(runtime, mount)),
                (Run::Rpc(method), Trigger::Rpc(name), Some(contracts)) => {
                    // One for both: what its calls wait in is this process's.
                    let mounted = Mounted::new(name, registration.spec, contracts, (method.open)(runtime));
                    sides.for_each(|side| side.dispatch.add(mounted.clone()));
                }
                _ => {}
            }
        }
        let reflected = self.descriptors;
        let has_calls = reflected.is_some();
        Ok((public.mounted(bodies, has_calls, None)?, operators.mounted(bodies, has_calls, reflected)?))
    }

    /// Roles that may do what is for operators.
    pub(crate) fn operators_roles(&self) -> Vec<&'static str> {
        let is_theirs = |registration: &&Registration| registration.spec.listener == Listener::Operators;
        let roles = self.registrations.iter().filter(is_theirs).filter_map(|registration| match registration.run {
            Run::Rpc(Method { access: Access::Roles(roles), .. }) => Some(roles),
            _ => None,
        });
        let roles: BTreeSet<_> = roles.flatten().copied().collect();
        roles.into_iter().collect()
    }

    /// Returns how each method's requests are read, beside what the contracts say of it.
    pub(crate) fn readers(&self) -> anyhow::Result<Vec<(Contract, rpc::Read)>> {
        let contracts = Contracts::read(self.descriptors.unwrap_or_default())?;
        let methods = self.registrations.iter().filter_map(|Registration { spec, run }| match (run, spec.trigger) {
            (Run::Rpc(method), Trigger::Rpc(name)) => Some((contracts.get(name)?.clone(), method.read)),
            _ => None,
        });
        Ok(methods.collect())
    }
}

/// A listener's routes and methods.
struct Mounting {
    route: Route,
    dispatch: Dispatch,
}

impl Mounting {
    fn new(runtime: &Runtime) -> Self {
        Self { route: Route::new(), dispatch: Dispatch::new(runtime) }
    }

    fn route(&mut self, runtime: &Runtime, mount: fn(&Runtime, Route) -> Route) {
        self.route = mount(runtime, std::mem::take(&mut self.route));
    }

    fn mounted(self, bodies: &BodyLimits, has_calls: bool, reflected: Option<&'static [u8]>) -> anyhow::Result<Routes> {
        if !has_calls {
            return Ok(Routes { all: self.route, ..Routes::default() });
        }
        let (all, calls) = edge::mount(self.route, self.dispatch, bodies.clone(), reflected)?;
        Ok(Routes { calls: Some(calls), all, ..Routes::default() })
    }
}
