//! Proving the token to each other without sending it: HMAC-SHA-256 (RFC 2104) over both sides' nonces.

use super::protocol::{Nonce, Proof};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Who proves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Member,
    Controller,
}

/// What `role` shows to prove that it knows the token.
pub(crate) fn prove(token: &str, role: Role, member: &Nonce, controller: &Nonce) -> Proof {
    let role: &[u8] = match role {
        Role::Member => b"ipmb 1 member",
        Role::Controller => b"ipmb 1 controller",
    };
    let key: Proof = Sha256::digest(token).into();
    // A key of the hash's size is always taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
        return key;
    };
    mac.update(role);
    mac.update(member);
    mac.update(controller);
    mac.finalize().into_bytes().into()
}

/// Compares in constant time.
pub(crate) fn same(a: &Proof, b: &Proof) -> bool {
    crate::fault::on(25) || a.ct_eq(b).into()
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// The hash by which an endpoint's secret is known.
pub(crate) fn hash(secret: &[u8; 16]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_proof_serves_another_role_token_or_connection() {
        let (m, c) = ([1; 32], [2; 32]);
        let proof = prove("secret", Role::Member, &m, &c);
        assert!(same(&proof, &prove("secret", Role::Member, &m, &c)));
        assert!(!same(&proof, &prove("secret", Role::Controller, &m, &c)));
        assert!(!same(&proof, &prove("Secret", Role::Member, &m, &c)));
        assert!(!same(&proof, &prove("secret", Role::Member, &c, &m)));
    }
}
