//! Development identities: a key pair and tokens signed with it. A real deployment has an identity provider instead.
use crate::bidctl::{
    output::{Output, say},
    settings::Settings,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use ed25519_dalek::{
    SigningKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use gavel_rules::UserId;
use gavel_runtime::{
    auth::{self, Claims},
    clock,
};
use rand_core::OsRng;
use serde_json::json;
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

const ROLES: [&str; 3] = ["bidder", "seller", "ops"];

#[derive(Args)]
pub(crate) struct Token {
    /// What the user may do: give it again for each further role
    #[arg(long = "role", value_parser = ROLES, default_value = "bidder")]
    roles: Vec<String>,
    /// Time for which the token is valid
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
}

impl Token {
    pub(crate) fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let Some(user) = &settings.user else { bail!("whose token? Give --user NAME") };
        let token = mint(settings, user, &self.roles, self.minutes)?;
        if output.json {
            let expires_at = clock::wall() + chrono::TimeDelta::minutes(self.minutes.into());
            let expires_at = expires_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            output.record(&json!({ "token": token, "user": user, "roles": self.roles, "expires_at": expires_at }), &[]);
        } else {
            say!("{token}");
        }
        Ok(())
    }
}

impl Settings {
    /// The token to call the public's address with: minted for `--user`, else the given one.
    pub(crate) fn token(&self, role: &str) -> anyhow::Result<String> {
        self.token_for(role, &self.url, "--url or GAVEL_URL", self.is_url_from_file)
    }

    /// As [`Settings::token`], for the operators' address.
    pub(crate) fn operators_token(&self) -> anyhow::Result<String> {
        self.token_for("ops", &self.ops_url, "--ops-url or GAVEL_OPS_URL", self.is_ops_url_from_file)
    }

    /// An address from the file gets no secret from elsewhere.
    fn token_for(&self, role: &str, url: &str, named: &str, is_address_from_file: bool) -> anyhow::Result<String> {
        let why = format!(
            "is not sent to an address that only .gavel/dev.env names, {url}; allowed: that address by {named}, or --user \
             with the key of that file"
        );
        match (&self.user, &self.token) {
            (Some(user), _) => {
                let is_key_from_file = self.is_from_file("GAVEL_JWT_SIGNING_KEY");
                ensure!(is_key_from_file || !is_address_from_file, "a token by another key than that file's {why}");
                mint(self, user, &[role], 60)
            }
            (None, Some(token)) => {
                ensure!(!is_address_from_file, "a token from --token or GAVEL_TOKEN {why}");
                Ok(token.clone())
            }
            (None, None) => {
                bail!("who calls? Give --user NAME (with the development key), or --token or GAVEL_TOKEN")
            }
        }
    }

    /// As [`Settings::token`], for calls that anyone may make.
    pub(crate) fn token_if_any(&self, role: &str) -> anyhow::Result<Option<String>> {
        // A token that is not for this address is not needed either.
        let is_none = self.user.is_none() && (self.token.is_none() || self.is_url_from_file);
        if is_none { Ok(None) } else { self.token(role).map(Some) }
    }
}

/// Signs a token with `GAVEL_JWT_SIGNING_KEY` or the file that `GAVEL_JWT_SIGNING_KEY_FILE` names.
pub(crate) fn mint(settings: &Settings, user: &str, roles: &[impl AsRef<str>], minutes: u32) -> anyhow::Result<String> {
    let user: UserId = user.parse()?;
    let mut env = settings.env();
    let key =
        env.secret("GAVEL_JWT_SIGNING_KEY", "the Ed25519 private key that `cargo xtask up` or `bidctl keygen` makes");
    env.finish()?;
    let now = clock::wall().timestamp();
    let claims = Claims {
        sub: user.to_string(),
        roles: roles.iter().map(|role| role.as_ref().to_owned()).collect(),
        iss: settings.get("GAVEL_JWT_ISSUER").unwrap_or("gavel").to_owned(),
        aud: settings.get("GAVEL_JWT_AUDIENCE").unwrap_or("gavel").to_owned(),
        iat: now,
        exp: now + i64::from(minutes) * 60,
    };
    auth::mint(&key, &claims).context("the signing key is no Ed25519 private key in PKCS#8 PEM")
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// Where jwt-signing-key.pem and jwt-public-key.pem are written
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
}

impl Keygen {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let key = SigningKey::generate(&mut OsRng);
        let (private, public) = (self.dir.join("jwt-signing-key.pem"), self.dir.join("jwt-public-key.pem"));
        fs::create_dir_all(&self.dir)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&private)
            .with_context(|| format!("can't write {}: an existing key is never overwritten", private.display()))?;
        file.write_all(key.to_pkcs8_pem(LineEnding::LF)?.as_bytes())?;
        fs::write(&public, key.verifying_key().to_public_key_pem(LineEnding::LF)?)?;
        let (private, public) = (private.display().to_string(), public.display().to_string());
        let json = json!({ "signing_key_file": private, "public_key_file": public });
        output.record(&json, &[("signing key", private), ("public key", public)]);
        Ok(())
    }
}
