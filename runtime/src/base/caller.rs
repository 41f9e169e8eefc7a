//! Who calls, and who may.
use super::clock;
use crate::{Class, Error, Result};
use std::{sync::Arc, time::Duration};

/// Who calls, as their token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// What they may do.
    pub roles: Arc<[String]>,
    /// Until when the token holds, in seconds since 1970.
    pub expires_at: i64,
}

impl Caller {
    /// Returns whether they have that role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Returns how long the token still holds.
    pub(crate) fn remaining(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.expires_at - clock::wall().timestamp()).unwrap_or_default())
    }
}

/// Who may call a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone. A token, where one is sent, must still be valid.
    Public,
    /// Anyone with a valid token.
    Authenticated,
    /// A valid token with one of these roles.
    Roles(&'static [&'static str]),
}

impl Access {
    /// Checks that `caller` may pass.
    pub fn check(self, caller: Option<&Caller>) -> Result<()> {
        match (self, caller) {
            (Self::Public, _) | (Self::Authenticated, Some(_)) => Ok(()),
            (Self::Authenticated | Self::Roles(_), None) => {
                Err(Error::new(Class::Unauthenticated, "a bearer token is required: authorization: Bearer <JWT>"))
            }
            (Self::Roles(roles), Some(caller)) if roles.iter().any(|role| caller.has_role(role)) => Ok(()),
            (Self::Roles(roles), Some(caller)) => Err(Error::new(
                Class::Denied,
                format!("role {:?} may not do this; allowed: {}", caller.roles.join(", "), roles.join(", ")),
            )),
        }
    }
}
