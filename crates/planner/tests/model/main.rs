//! Every world that a user, a kubelet and a dying controller can make of a StatefulSet, within bounds, and the promises
//! in each of them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it has seen"
)]

mod explore;
mod plans;
mod promises;
mod scenes;
mod world;

#[test]
fn ordered_sets_are_scaled_in_order_whatever_happens_to_their_pods() {
    scenes::run("ordered_sets_are_scaled_in_order_whatever_happens_to_their_pods");
}

#[test]
fn parallel_sets_are_scaled_at_once_whatever_happens_to_their_pods() {
    scenes::run("parallel_sets_are_scaled_at_once_whatever_happens_to_their_pods");
}

#[test]
fn an_update_goes_from_the_highest_ordinal_down_however_it_is_changed() {
    scenes::run("an_update_goes_from_the_highest_ordinal_down_however_it_is_changed");
}

#[test]
fn an_update_of_a_parallel_set_keeps_within_what_may_be_unavailable() {
    scenes::run("an_update_of_a_parallel_set_keeps_within_what_may_be_unavailable");
}

#[test]
fn strategies_and_policies_may_change_while_an_update_is_on_its_way() {
    scenes::run("strategies_and_policies_may_change_while_an_update_is_on_its_way");
}

#[test]
fn a_broken_update_is_stuck_only_as_documented() {
    scenes::run("a_broken_update_is_stuck_only_as_documented");
}

#[test]
fn claims_follow_the_retention_policy_and_nothing_else() {
    scenes::run("claims_follow_the_retention_policy_and_nothing_else");
}

#[test]
fn a_set_is_deleted_in_three_ways_and_made_again() {
    scenes::run("a_set_is_deleted_in_three_ways_and_made_again");
}

#[test]
fn other_ordinals_strangers_and_lost_labels_are_told_apart() {
    scenes::run("other_ordinals_strangers_and_lost_labels_are_told_apart");
}

#[test]
fn a_controller_with_a_stale_cache_breaks_no_promise() {
    scenes::run("a_controller_with_a_stale_cache_breaks_no_promise");
}

#[test]
fn an_update_of_two_parallel_pods_keeps_its_order() {
    scenes::run("an_update_of_two_parallel_pods_keeps_its_order");
}
