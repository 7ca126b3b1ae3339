//! The hash of a certificate, as addresses and the Noise handshake have it.

/// The code of SHA-256 in a multihash, and the length of such a hash. Source: multiformats.
pub(crate) const SHA_256: [u8; 2] = [0x12, 32];

/// The multihash of a certificate.
pub(crate) type Fingerprint = [u8; 34];
