//! The bound, who goes at it, and that nothing else is lost.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[test]
fn holds_no_more_than_the_bound() {
    for bound in [1, 3, 1_000, 100_000] {
        let map = Bounded::new(bound);
        for number in 0..200_000_u32 {
            map.put(map.key(number), number);
        }
        assert!(map.len() <= bound + SHARDS_MAX, "{} of {bound}", map.len());
        assert_eq!(map.evicted() as usize + map.len(), 200_000);
        let last = map.key(199_999_u32);
        assert_eq!(map.get(last), Some(199_999));
        map.remove(last);
        map.remove(last);
        assert_eq!(map.get(last), None);
        map.for_each(|value| *value = 7);
        assert!((0..200_000_u32).all(|number| map.get(map.key(number)).is_none_or(|value| value == 7)));
    }
}

#[test]
fn another_bound_keeps_what_is_there() {
    let map = Bounded::new(100);
    (0..100_u32).for_each(|number| map.put(map.key(number), number));
    map.set_bound(200);
    assert_eq!(map.get(map.key(0_u32)), Some(0));
    (100..200_u32).for_each(|number| map.put(map.key(number), number));
    assert_eq!((map.len(), map.evicted()), (200, 0));
    map.set_bound(50);
    (200..400_u32).for_each(|number| map.put(map.key(number), number));
    assert_eq!(map.len(), 50);
}

#[test]
fn the_idle_go_first_in_a_large_map_too() {
    let map = Bounded::new(10_000);
    (0..10_000_u32).for_each(|number| map.put(map.key(number), number));
    // A tenth stays busy while others come. (Shards are not filled evenly: some have gone already.)
    let busy: Vec<u32> = (0..1_000).filter(|number| map.get(map.key(number)).is_some()).collect();
    for number in 10_000..40_000_u32 {
        map.put(map.key(number), number);
        if let Some(one) = busy.get(number as usize % busy.len()) {
            map.get(map.key(one));
        }
    }
    let kept = busy.iter().filter(|number| map.get(map.key(number)).is_some()).count();
    assert!(busy.len() > 900 && kept == busy.len(), "{kept} of {} that were busy", busy.len());
}

#[test]
fn where_nobody_has_to_go_a_full_map_takes_none() {
    let map = Bounded::new(2);
    let enter = |number: u32| map.with_room(map.key(number), |held| (held.copied(), Change::Put(number)));
    assert_eq!((enter(1), enter(2), enter(3)), (Some(None), Some(None), None));
    assert_eq!(enter(1), Some(Some(1)), "who is there stays");
}

#[derive(Clone, Debug)]
enum Call {
    Put(u8),
    Get(u8),
    Remove(u8),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![any::<u8>().prop_map(Call::Put), any::<u8>().prop_map(Call::Get), any::<u8>().prop_map(Call::Remove)]
}

proptest! {
    /// A small map against a list that does the same in the plainest way.
    #[test]
    fn the_idle_longest_goes(calls in prop::collection::vec(call(), 0..600), bound in 1_usize..20) {
        let map = Bounded::new(bound);
        let mut model: VecDeque<u8> = VecDeque::new();
        for call in calls {
            match call {
                Call::Put(key) => {
                    map.put(map.key(key), key);
                    if let Some(at) = model.iter().position(|one| *one == key) {
                        model.remove(at);
                    } else if model.len() == bound {
                        model.pop_back();
                    }
                    model.push_front(key);
                }
                Call::Get(key) => {
                    prop_assert_eq!(map.get(map.key(key)).is_some(), model.contains(&key));
                    if model.contains(&key) {
                        model.retain(|one| *one != key);
                        model.push_front(key);
                    }
                }
                Call::Remove(key) => {
                    map.remove(map.key(key));
                    model.retain(|one| *one != key);
                }
            }
            prop_assert_eq!(map.len(), model.len());
        }
        for key in 0..=u8::MAX {
            prop_assert_eq!(map.get(map.key(key)), model.contains(&key).then_some(key));
        }
    }
}

#[test]
fn an_entry_of_a_rate_is_32_bytes() {
    assert_eq!(size_of::<Option<Entry<u64>>>(), 32);
}

#[test]
fn nothing_is_allocated_for_what_is_known() {
    let map = Bounded::new(1_000);
    let key = map.key("somebody");
    map.put(key, 1_u64);
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            let key = map.key("somebody");
            map.with(key, |held| ((), held.map_or(Change::Keep, |value| Change::Put(value + 1))));
        }
    });
    assert_eq!(info.count_total, 0);
    assert_eq!(map.get(key), Some(101));
}

#[test]
fn whoever_computes_keys_aims_at_nothing() {
    let map = Bounded::new(10_000);
    for number in 0..10_000 {
        let key = Key::from_bits([7, number]);
        map.put(key, number);
        assert_eq!(map.get(key), Some(number));
    }
    assert!(map.len() > 9_000, "{} in a map of 10,000", map.len());
}
