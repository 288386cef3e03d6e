//! A DNS message as bytes (RFC 1035 §4.1): where its question ends and where its times to live are. Answers that are
//! passed on keep every other byte as it came, whatever record types the world comes up with.

pub const HEADER_BYTES: usize = 12;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const CODE_OK: u8 = 0;
const CODE_NO_NAME: u8 = 3;

/// The byte after the first question; None if there is none or it is cut.
pub fn question_end(message: &[u8]) -> Option<usize> {
    (u16_at(message, 4)? > 0).then_some(())?;
    let end = name_end(message, HEADER_BYTES)? + 4;
    (end <= message.len()).then_some(end)
}

pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

pub fn response_code(message: &[u8]) -> Option<u8> {
    message.get(3).map(|flags| flags & 0x0f)
}

/// How long an answer may be kept, and what must be aged meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub seconds: u32,
    /// Where the times to live are.
    pub ttls: Vec<usize>,
}

/// None: not to be kept. A negative answer is kept as long as its SOA says (RFC 2308 §5).
pub fn lifetime(message: &[u8]) -> Option<Lifetime> {
    let code = response_code(message).filter(|code| matches!(*code, CODE_OK | CODE_NO_NAME))?;
    if is_truncated(message) || u16_at(message, 4)? != 1 {
        return None;
    }
    let answers = u16_at(message, 6)?;
    let records = answers.checked_add(u16_at(message, 8)?)?.checked_add(u16_at(message, 10)?)?;
    let mut lifetime = Lifetime { seconds: u32::MAX, ttls: Vec::new() };
    let mut has_soa = false;
    let mut at = question_end(message)?;
    for _ in 0..records {
        let fixed = name_end(message, at)?;
        let kind = u16_at(message, fixed)?;
        let data = fixed + 10;
        let end = data + usize::from(u16_at(message, fixed + 8)?);
        (end <= message.len()).then_some(())?;
        if kind != TYPE_OPT {
            lifetime.seconds = lifetime.seconds.min(u32_at(message, fixed + 4)?);
            lifetime.ttls.push(fixed + 4);
        }
        if kind == TYPE_SOA {
            has_soa = true;
            lifetime.seconds = lifetime.seconds.min(u32_at(message, end.checked_sub(4)?)?);
        }
        at = end;
    }
    let is_negative = answers == 0 || code == CODE_NO_NAME;
    (lifetime.seconds > 0 && !lifetime.ttls.is_empty() && (has_soa || !is_negative)).then_some(lifetime)
}

/// The byte after a name that begins at `at`.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(at + 1),
            // A pointer to an earlier name ends this one.
            0xc0.. => return (at + 2 <= message.len()).then_some(at + 2),
            1..0x40 => at += 1 + length,
            _ => return None,
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, OpCode, Query};
    use hickory_proto::rr::rdata::{A, CNAME, SOA, TXT};
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn response(answers: &[(&str, u32, RData)], authorities: &[(&str, u32, RData)]) -> Vec<u8> {
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(Query::query(name("www.example.com."), RecordType::A));
        let record = |(owner, ttl, data): &(&str, u32, RData)| Record::from_rdata(name(owner), *ttl, data.clone());
        message.add_answers(answers.iter().map(record));
        message.add_authorities(authorities.iter().map(record));
        message.set_edns(hickory_proto::op::Edns::new());
        message.to_vec().unwrap()
    }

    fn soa(minimum: u32) -> RData {
        RData::SOA(SOA::new(name("ns.example.com."), name("admin.example.com."), 1, 2, 3, 4, minimum))
    }

    #[test]
    fn an_answer_lives_as_long_as_its_shortest_record() {
        let cname = RData::CNAME(CNAME(name("web.example.com.")));
        let message = response(
            &[("www.example.com.", 300, cname), ("web.example.com.", 60, RData::A(A::new(192, 0, 2, 1)))],
            &[],
        );
        let lifetime = lifetime(&message).unwrap();
        assert_eq!((lifetime.seconds, lifetime.ttls.len()), (60, 2));
        let ttls: Vec<_> = lifetime.ttls.iter().map(|at| u32_at(&message, *at)).collect();
        assert_eq!(ttls, [Some(300), Some(60)]);
    }

    #[test]
    fn a_negative_answer_lives_as_its_soa_says() {
        assert_eq!(lifetime(&response(&[], &[("example.com.", 900, soa(30))])).map(|l| l.seconds), Some(30));
        assert_eq!(lifetime(&response(&[], &[])), None, "nothing says how long");
    }

    #[test]
    fn what_may_not_be_kept_has_no_lifetime() {
        let mut message = response(&[("www.example.com.", 60, RData::A(A::new(192, 0, 2, 1)))], &[]);
        message[2] |= 0x02;
        assert_eq!(lifetime(&message), None, "truncated");
        message[2] &= !0x02;
        message[3] |= 2;
        assert_eq!(lifetime(&message), None, "SERVFAIL");
        assert_eq!(lifetime(&response(&[("www.example.com.", 0, RData::A(A::new(192, 0, 2, 1)))], &[])), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            lifetime(&bytes);
            question_end(&bytes);
        }

        /// The reference reads what we point at.
        #[test]
        fn times_to_live_are_found_where_the_reference_finds_them(ttls in proptest::collection::vec(1u32..100_000, 1..20)) {
            let txt = |ttl: &u32| ("www.example.com.", *ttl, RData::TXT(TXT::new(vec!["x".repeat(*ttl as usize % 200)])));
            let message = response(&ttls.iter().map(txt).collect::<Vec<_>>(), &[]);
            let found = lifetime(&message).unwrap();
            let read: Vec<_> = Message::from_vec(&message).unwrap().answers.iter().map(|record| record.ttl).collect();
            prop_assert_eq!(found.seconds, *read.iter().min().unwrap());
            let pointed: Vec<_> = found.ttls.iter().filter_map(|at| u32_at(&message, *at)).collect();
            prop_assert_eq!(pointed, read);
        }
    }
}
