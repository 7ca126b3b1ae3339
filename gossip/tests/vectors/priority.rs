//! The priority response against the recordings of existing nodes.

use crate::support;
use tandem_gossip::{
    Identity,
    wire::priority::{
        self, OneTimeSignature, PriorityError, PriorityResponse, Voter, signed_batch_key,
        signed_challenge, signed_offset_key,
    },
};

// Issue 10, 8.
#[test]
fn responses_are_written_byte_for_byte() {
    support::each_case("prio", "vectors", 4, |case| {
        let number = |name: &str| case[name].as_u64().unwrap();
        let challenge = support::text(case, "challenge");
        let (round, batch, offset) = (number("round"), number("batch"), number("offset"));
        let vote_key = support::array(case, "vote_id");
        let voter = Voter { vote_key, key_dilution: number("key_dilution") };
        assert_eq!(voter.key_number(round), (batch, offset));
        let signature = OneTimeSignature {
            offset_key: support::array(case, "p"),
            offset_key_signature: support::array(case, "p1s"),
            batch_key: support::array(case, "p2"),
            batch_key_signature: support::array(case, "p2s"),
            signature: support::array(case, "s"),
        };
        assert_eq!(signed_challenge(challenge), support::bytes(case, "signed_by_p"));
        let offset_key = signed_offset_key(batch, offset, &signature.offset_key);
        assert_eq!(offset_key, support::bytes(case, "signed_by_p2"));
        let batch_key = signed_batch_key(batch, &signature.batch_key);
        assert_eq!(batch_key, support::bytes(case, "signed_by_vote_id"));
        let account = support::array(case, "sender");
        let response =
            PriorityResponse { challenge: challenge.to_owned(), round, account, signature };
        let message = [b"NP", &response.encode()[..]].concat();
        assert_eq!(message, support::bytes(case, "np_message"));
        assert_eq!(message.len() as u64 - 2, number("payload_len"));
        assert_eq!(PriorityResponse::decode(&message[2..]), Ok(response.clone()));
        assert_eq!(response.verify(challenge, &voter), Ok(()));
        assert!(
            Identity::from_ed25519(vote_key)
                .verify(&batch_key, &signature.batch_key_signature)
                .is_ok()
        );
    });
}

#[test]
fn responses_are_judged_as_existing_nodes_judge_them() {
    let file = support::json("vectors/prio.json");
    let first = &file["vectors"][0];
    let vote_key = support::array(first, "vote_id");
    let voter = Voter { vote_key, key_dilution: 10 };
    support::each_case("prio", "cases", 11, |case| {
        let payload = support::bytes(case, "payload");
        let verdict = match PriorityResponse::decode(&payload) {
            Err(_) => "undecodable",
            Ok(response) => match response.verify(support::text(case, "challenge"), &voter) {
                Ok(()) => "accepted",
                Err(PriorityError::WrongChallenge) => "challenge_mismatch",
                Err(_) => "bad_signature",
            },
        };
        assert_eq!(verdict, support::text(case, "verdict"));
    });
}

#[test]
fn a_challenge_has_forty_four_characters() {
    assert_eq!(priority::challenge([0xff; 32]).len(), priority::MAX_CHALLENGE_BYTES);
}
