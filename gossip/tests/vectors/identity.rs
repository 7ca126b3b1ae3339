//! The identity exchange and peer ids against the recordings of existing nodes.

use crate::support;
use serde_json::Value;
use tandem_gossip::{
    DisconnectReason, Identity, NetworkProfile,
    wire::{
        hello::Header,
        identity::{
            self, Challenge, Introduction, Keypair, ListenerIdentity, ResponseSeen, Verification,
        },
    },
};

fn key(case: &Value, seed: &str) -> Keypair {
    Keypair::from_seed(support::array(case, seed))
}

fn challenge(case: &Value, name: &str) -> Challenge {
    Challenge(support::array(case, name))
}

/// The name of the listener of the recordings.
fn names() -> Vec<String> {
    vec!["relay.example:4160".to_owned()]
}

/// The challenge our listener issues: no case depends on it.
const RESPONSE_CHALLENGE: Challenge = Challenge([0x20; 32]);

#[test]
fn whole_exchanges_are_written_byte_for_byte() {
    support::each_case("identity", "vectors", 6, |case| {
        let (dialer, listener) = (key(case, "dialer_seed"), key(case, "listener_seed"));
        assert_eq!(dialer.public(), support::array(case, "dialer_pk"));
        assert_eq!(listener.public(), support::array(case, "listener_pk"));
        let (sent, issued) = (challenge(case, "challenge"), challenge(case, "response_challenge"));
        let address = support::text(case, "address");

        let request = identity::request_header(&dialer, address, sent);
        assert_eq!(request, support::text(case, "header_request"));
        let seen = identity::read_request_header(&request).unwrap();
        assert_eq!((seen.challenge, seen.key), (sent, dialer.identity()));
        assert_eq!(seen.address, address.as_bytes());

        let response = identity::response_header(&listener, &seen, issued);
        assert_eq!(response, support::text(case, "header_response"));
        let answered = identity::read_response_header(&response, &sent).unwrap();
        let expected = ResponseSeen { key: listener.identity(), response_challenge: issued };
        assert_eq!(answered, expected);

        let payload = identity::verification(&dialer, issued);
        assert_eq!([b"NI", &payload[..]].concat(), support::bytes(case, "ni_message"));
        assert_eq!(identity::check_verification(&payload, &seen.key, &issued), Ok(()));

        // The signatures above are right only if the bytes signed are these.
        for (number, header) in [("signed_bytes_1", &request), ("signed_bytes_2", &response)] {
            let signed = support::bytes(case, number);
            let by = if number == "signed_bytes_1" { &dialer } else { &listener };
            let signature = by.sign(&signed);
            let message = support::from_base64(&serde_json::json!({ "header": header }), "header");
            assert!(message.ends_with(&signature), "{number}");
        }
        assert!(payload.ends_with(&dialer.sign(&support::bytes(case, "signed_bytes_3"))));
    });
}

#[test]
fn a_listener_accepts_refuses_or_goes_on_as_recorded() {
    let listener = Keypair::from_seed([1; 32]);
    support::each_case("identity", "listener_cases", 38, |case| {
        let header = support::text(case, "header_request");
        let (state, introduction) =
            ListenerIdentity::meet(Some(header), &names(), &listener, RESPONSE_CHALLENGE);
        match support::text(case, "verdict") {
            "accept" => {
                let key = Identity::from_ed25519(support::array(case, "dialer_pk"));
                let response_challenge = RESPONSE_CHALLENGE;
                assert_eq!(state, ListenerIdentity::Challenged { key, response_challenge });
                assert!(matches!(introduction, Introduction::Accept { .. }));
            }
            "continue_without_identity" => {
                assert_eq!(state, ListenerIdentity::Anonymous);
                assert_eq!(introduction, Introduction::ContinueWithoutIdentity);
            }
            "refuse" => {
                assert_eq!(state, ListenerIdentity::Anonymous);
                assert!(matches!(introduction, Introduction::Refuse(_)));
            }
            other => panic!("verdict {other}"),
        }
    });
}

#[test]
fn a_dialer_accepts_or_aborts_as_recorded() {
    let dialer = Keypair::from_seed([0; 32]);
    support::each_case("identity", "dialer_cases", 12, |case| {
        let header = support::text(case, "header_response");
        let sent = challenge(case, "challenge_sent");
        let read = identity::read_response_header(header, &sent);
        match support::text(case, "verdict") {
            "accept" => {
                let seen = read.unwrap();
                assert_eq!(seen.key.ed25519().unwrap(), support::array(case, "listener_pk"));
                let payload = identity::verification(&dialer, seen.response_challenge);
                assert_eq!([b"NI", &payload[..]].concat(), support::bytes(case, "ni_message"));
            }
            // Without a header there is nothing to read: the transport goes on without identity.
            "continue_without_identity" => assert_eq!(header, ""),
            "abort" => assert!(read.is_err()),
            other => panic!("verdict {other}"),
        }
    });
}

#[test]
fn a_verification_is_judged_as_recorded() {
    support::each_case("identity", "ni_cases", 12, |case| {
        let key = Identity::from_ed25519(support::array(case, "dialer_pk"));
        let response_challenge = challenge(case, "response_challenge_issued");
        let name = support::text(case, "name");
        let mut state = match name {
            "already_verified" => ListenerIdentity::Verified { key },
            _ if name.starts_with("never_challenged") => ListenerIdentity::Anonymous,
            _ => ListenerIdentity::Challenged { key, response_challenge },
        };
        let before = state;
        let verdict = state.verify(&support::bytes(case, "ni_payload"));
        match support::text(case, "verdict") {
            "verified" => assert_eq!(verdict, Verification::Verified(key)),
            "ignored" => assert_eq!(verdict, Verification::Ignored),
            "disconnect:BadIdentityData" => {
                let bad = |reason| reason == DisconnectReason::BadIdentity;
                assert!(matches!(verdict, Verification::Disconnect(reason, _) if bad(reason)));
                assert_eq!(state, before);
            }
            // Verified as far as this exchange can tell. That another link has the key already is for
            // the ledger of identities to find out.
            "disconnect:DuplicateConnection" => {
                assert_eq!(name, "identity_taken");
                assert_eq!(verdict, Verification::Verified(key));
            }
            other => panic!("verdict {other}"),
        }
    });
}

#[test]
fn the_exchange_of_two_live_nodes_verifies() {
    let header = |file: &str| {
        let name = Header::IdentityChallenge.name(&NetworkProfile::ALGORAND);
        let headers = support::algorand_headers(file);
        headers.into_iter().find(|(found, _)| *found == name).unwrap().1
    };
    let seen = identity::read_request_header(&header("upgrade-request-identity.txt")).unwrap();
    assert_eq!(seen.address, b"127.0.0.1:24163");
    let response = header("upgrade-response-identity.txt");
    let answered = identity::read_response_header(&response, &seen.challenge).unwrap();
    assert_ne!(answered.key, seen.key);

    let corpus = support::json("corpus/small-messages.json");
    let [message] = &corpus["NI"].as_array().unwrap()[..] else { panic!("not one NI") };
    let payload = support::bytes(message, "payload");
    let checked = identity::check_verification(&payload, &seen.key, &answered.response_challenge);
    assert_eq!(checked, Ok(()));
}

#[test]
fn keys_have_the_recorded_peer_ids_and_files() {
    support::each_case("peerid_cid", "peer_ids", 5, |case| {
        let key = key(case, "seed");
        assert_eq!(key.identity(), Identity::from_ed25519(support::array(case, "public_key")));
        let bytes: [u8; 38] = support::array(case, "peer_id_bytes");
        assert_eq!(key.identity().peer_id_bytes(), bytes);
        assert_eq!(key.identity().to_string(), support::text(case, "peer_id"));
        assert_eq!(support::text(case, "peer_id").parse(), Ok(key.identity()));
        let file = support::text(case, "key_file_pem");
        assert_eq!(Keypair::from_pem(file).unwrap().seed(), key.seed());
        assert_eq!(key.to_pem().unwrap(), file);
    });
}

#[test]
fn the_names_of_the_profile_are_the_recorded_ones() {
    let json = support::json("vectors/peerid_cid.json");
    let profile = NetworkProfile::ALGORAND;
    let legacy = profile.legacy_stream_protocol.unwrap();
    assert_eq!(json["stream_protocols"], serde_json::json!([profile.stream_protocol, legacy]));
    let topic = json["gossipsub_topic"].as_str().unwrap();
    let is_topic = |route| matches!(route, tandem_gossip::Route::Topic(name) if name == topic);
    assert!(profile.tags.rules().iter().any(|rule| is_topic(rule.route)));
}
