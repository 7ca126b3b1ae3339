//! Bounds of looking for nodes in DNS.

use std::{num::NonZeroUsize, time::Duration};

use gossip::Durations;

/// Bounds of what DNS is asked, and of what is believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsLimits {
    /// Addresses taken of one list. Default: 256. Source: threats and goals, row 23: a source fills a sixteenth of
    /// the 4,096 addresses that a node knows.
    pub addresses: NonZeroUsize,
    /// Records looked at in one answer. Default: 1,024. Chosen: a message of 64 KiB has room for as many.
    pub records: NonZeroUsize,
    /// Names asked in one tree. Default: 256. Chosen: as many as there may be addresses.
    pub questions: NonZeroUsize,
    /// Names on the way from the root of a tree to an address. Default: 25. Source: wire facts 8.8.
    pub depth: NonZeroUsize,
    /// Longest time for the answer to one question, of one server after the other. Default: 5 s. Source: resolvers'
    /// usual time, resolv.conf(5).
    pub question_timeout: Duration,
    /// Longest time for a look at everything. What has come by then is taken. Default: 20 s. Chosen: the usual time
    /// of four questions in turn.
    pub look_timeout: Duration,
    /// Shortest time from one look to the next, whatever the records say. Default: 60 s. Source: wire facts 10.4, how
    /// often existing nodes look.
    pub soonest: Duration,
    /// Longest time from one look to the next. Default: 1 h. Chosen: a relay that moves is found again before the
    /// operator has had breakfast.
    pub latest: Duration,
    /// Longest pause before the next look after one that found nothing; the first pause is a sixteenth of it at
    /// most, and each one up to twice as long as that before. Default: 60 s. Chosen: as `soonest`.
    pub retry: Duration,
    /// Time for which a list is kept while no answer confirms it. Default: 24 h. Chosen: longer than DNS is away
    /// anywhere, and short enough that addresses which somebody else may have by now are forgotten.
    pub oldest: Duration,
}

gossip::setters!(DnsLimits {
    with_addresses => addresses: NonZeroUsize,
    with_records => records: NonZeroUsize,
    with_questions => questions: NonZeroUsize,
    with_depth => depth: NonZeroUsize,
    with_question_timeout => question_timeout: Duration,
    with_look_timeout => look_timeout: Duration,
    with_soonest => soonest: Duration,
    with_latest => latest: Duration,
    with_retry => retry: Duration,
    with_oldest => oldest: Duration,
});

impl Durations for DnsLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("DnsLimits::question_timeout", &mut self.question_timeout);
        visit("DnsLimits::look_timeout", &mut self.look_timeout);
        visit("DnsLimits::soonest", &mut self.soonest);
        visit("DnsLimits::latest", &mut self.latest);
        visit("DnsLimits::retry", &mut self.retry);
        visit("DnsLimits::oldest", &mut self.oldest);
    }
}

impl Default for DnsLimits {
    fn default() -> Self {
        let number = |number: usize| NonZeroUsize::MIN.saturating_add(number - 1);
        Self {
            addresses: number(256),
            records: number(1_024),
            questions: number(256),
            depth: number(25),
            question_timeout: Duration::from_secs(5),
            look_timeout: Duration::from_secs(20),
            soonest: Duration::from_secs(60),
            latest: Duration::from_secs(3_600),
            retry: Duration::from_secs(60),
            oldest: Duration::from_secs(24 * 3_600),
        }
    }
}
