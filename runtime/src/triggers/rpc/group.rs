//! Calls that are to be decided in one transaction, and how they are divided when that fails.
use super::{BatchHandler, reply::Decided};
use crate::{
    Error, Invocation, Member,
    postgres::receipt::{CallKey, Outcome},
};
use std::{collections::HashSet, time::Duration};
use tokio::sync::oneshot;

/// A call that has passed admission.
pub(super) struct Waiting<C> {
    pub(super) member: Member<C>,
    pub(super) slot: Slot,
}

/// Which call it is, and where its reply goes.
pub(super) struct Slot {
    pub(super) call: CallKey,
    pub(super) reply: oneshot::Sender<Decided>,
}

impl Slot {
    /// Returns whether somebody still waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    pub(super) fn answer(self, decided: Decided) {
        // Nobody may be waiting any more: the receipt tells them when they ask again.
        let _ = self.reply.send(decided);
    }
}

/// Calls and their slots, in the same order.
pub(super) struct Group<H: BatchHandler> {
    pub(super) members: Vec<Member<H::Command>>,
    pub(super) slots: Vec<Slot>,
    /// True if it waits for locks only a moment: keys whose locks are not to be had are being looked for.
    pub(super) short_lock_timeout: bool,
    /// True if their receipts are looked for before the work. Most calls are new, and one that is not is found out by
    /// its receipt when this transaction's is written; so it is done once something has gone wrong.
    pub(super) check_receipts_first: bool,
}

/// What is done with a group of which nothing stays.
pub(super) enum Next<H: BatchHandler> {
    /// Two groups, to be decided next.
    Halves([Group<H>; 2]),
    /// Nothing is wrong with it but that a lock is held elsewhere.
    Wait(Group<H>, Error),
    /// It can't be done.
    Fail(Group<H>, Error),
}

impl<H: BatchHandler> Group<H> {
    fn empty(short_lock_timeout: bool, check_receipts_first: bool) -> Self {
        Self { members: Vec::new(), slots: Vec::new(), short_lock_timeout, check_receipts_first }
    }

    fn push(&mut self, member: Member<H::Command>, slot: Slot) {
        self.members.push(member);
        self.slots.push(slot);
    }

    /// All calls of a batch.
    pub(super) fn of(calls: Vec<Waiting<H::Command>>, check_receipts_first: bool) -> Self {
        let mut group = Self::empty(false, check_receipts_first);
        for Waiting { member, slot } in calls {
            group.push(member, slot);
        }
        group
    }

    /// Each call once, and those that repeat one of them: they are to come after it, and will find its receipt.
    pub(super) fn once_each(self) -> (Self, Option<Self>) {
        let mut seen = HashSet::with_capacity(self.slots.len());
        let are_new: Vec<_> =
            self.slots.iter().map(|slot| seen.insert((slot.call.principal.as_str(), slot.call.key))).collect();
        if are_new.iter().all(|is_new| *is_new) {
            return (self, None);
        }
        let (mut first, mut repeated) = (
            Self::empty(self.short_lock_timeout, self.check_receipts_first),
            Self::empty(self.short_lock_timeout, true),
        );
        for ((member, slot), is_new) in self.members.into_iter().zip(self.slots).zip(are_new) {
            (if is_new { &mut first } else { &mut repeated }).push(member, slot);
        }
        (first, Some(repeated))
    }

    /// Which calls these are.
    pub(super) fn calls(&self) -> Vec<&CallKey> {
        self.slots.iter().map(|slot| &slot.call).collect()
    }

    /// Returns what its calls are about.
    pub(super) fn keys(&self) -> Vec<H::Key> {
        let mut keys = Vec::new();
        for member in &self.members {
            let key = H::key(&member.input);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn has_several_keys(&self) -> bool {
        let mut keys = self.members.iter().map(|member| H::key(&member.input));
        keys.next().is_some_and(|first| keys.any(|key| key != first))
    }

    /// The run that the transaction belongs to: the only one, or one with the most time.
    pub(super) fn representative(&self) -> Invocation {
        match &self.members[..] {
            [only] => only.invocation.clone(),
            members => {
                let mut invocation = Invocation::start(H::SPEC.name, Duration::ZERO);
                let deadlines = members.iter().map(|member| member.invocation.deadline);
                invocation.deadline = deadlines.max().unwrap_or(invocation.deadline);
                invocation
            }
        }
    }

    /// Answers those that were decided before; the others stay.
    pub(super) fn answer_known(&mut self, known: Vec<Option<Outcome>>) {
        if known.iter().all(Option::is_none) {
            return;
        }
        let before = std::mem::replace(self, Self::empty(self.short_lock_timeout, self.check_receipts_first));
        for ((member, slot), known) in before.members.into_iter().zip(before.slots).zip(known) {
            match known {
                None => self.push(member, slot),
                Some(known) => slot.answer(Decided::before(known)),
            }
        }
    }

    /// Returns what is to be done with it after that error.
    pub(super) fn divide(self, error: Error) -> Next<H> {
        let several_keys = self.has_several_keys();
        let locked = error.is_lock_wait();
        if locked && !several_keys {
            Next::Wait(Self { short_lock_timeout: false, check_receipts_first: true, ..self }, error)
        } else if error.is_nobodys_fault() || self.members.len() == 1 {
            Next::Fail(self, error)
        } else {
            let this = Self { check_receipts_first: true, short_lock_timeout: locked, ..self };
            Next::Halves(if locked { this.halves_by_key() } else { this.halves() })
        }
    }

    /// Those that still have time; the others are answered with the error.
    pub(super) fn in_time(self, error: &Error) -> Option<Self> {
        let (mut late, mut left) = (Self::empty(false, true), Self::empty(false, true));
        for (member, slot) in self.members.into_iter().zip(self.slots) {
            let is_late = member.invocation.remaining().is_zero();
            (if is_late { &mut late } else { &mut left }).push(member, slot);
        }
        if !late.members.is_empty() {
            late.fail(error);
        }
        Some(left).filter(|left| !left.members.is_empty())
    }

    /// Answers all of them with the error.
    pub(super) fn fail(self, error: &Error) {
        crate::context::invoke::report_all(H::SPEC, self.members.iter().map(|member| &member.invocation), error);
        self.slots.into_iter().for_each(|slot| slot.answer(Decided::now(Err(error.again()))));
    }

    /// In their order; a key may be in both.
    fn halves(mut self) -> [Self; 2] {
        let middle = self.members.len() / 2;
        let (members, slots) = (self.members.split_off(middle), self.slots.split_off(middle));
        let right = Self {
            members,
            slots,
            short_lock_timeout: self.short_lock_timeout,
            check_receipts_first: self.check_receipts_first,
        };
        [self, right]
    }

    /// Takes over those of `other` that are about the same, behind its own: they come after them whatever happens.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        let keys = self.keys();
        let kept = Self::empty(other.short_lock_timeout, other.check_receipts_first);
        let before = std::mem::replace(other, kept);
        for (member, slot) in before.members.into_iter().zip(before.slots) {
            let to = if keys.contains(&H::key(&member.input)) { &mut *self } else { &mut *other };
            to.push(member, slot);
        }
    }

    /// Each key in one of them.
    fn halves_by_key(self) -> [Self; 2] {
        let empty = || Self::empty(self.short_lock_timeout, self.check_receipts_first);
        let keys: Vec<_> = self.members.iter().map(|member| H::key(&member.input)).collect();
        let mut distinct = HashSet::new();
        let order: Vec<_> = keys.iter().filter(|key| distinct.insert((*key).clone())).collect();
        let left_keys: HashSet<_> = order[..order.len() / 2].iter().map(|key| (*key).clone()).collect();
        let (mut left, mut right) = (empty(), empty());
        for ((member, slot), key) in self.members.into_iter().zip(self.slots).zip(&keys) {
            (if left_keys.contains(key) { &mut left } else { &mut right }).push(member, slot);
        }
        [left, right]
    }
}
