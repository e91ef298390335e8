//! Tests that Windows cannot have, by name. They stand in files of their own, which are for other systems only.

#![cfg(windows)]

mod common;

common::skipped_on_windows! {
    a_descriptor_survives_exec: "it is about descriptors, signals, limits or paths, which are not there";
    a_closed_standard_stream_becomes_a_descriptor_of_the_bus: "it is about descriptors, signals, limits or paths, which are not there";
    a_setting_of_the_process_is_changed: "it is about descriptors, signals, limits or paths, which are not there";
    a_dead_peer_raises_a_signal: "it is about descriptors, signals, limits or paths, which are not there";
    the_thread_takes_signals_has_no_name_or_stays: "it is about descriptors, signals, limits or paths, which are not there";
    a_signal_surfaces_or_cuts_a_wait_short: "it is about descriptors, signals, limits or paths, which are not there";
    an_ended_bus_leaves_something_in_a_name_space: "it is about descriptors, signals, limits or paths, which are not there";
    a_bus_at_a_path_leaves_more_than_two_files_or_cannot_use_them_again: "it is about descriptors, signals, limits or paths, which are not there";
    who_comes_while_the_last_one_leaves_is_alone: "it is about descriptors, signals, limits or paths, which are not there";
    a_file_at_the_path_is_removed: "it is about descriptors, signals, limits or paths, which are not there";
    a_join_without_descriptors_fails_in_another_way_or_leaks: "a process can have 16 million handles, and its address space has no limit of its own there";
    a_full_table_of_the_controllers_process_is_not_named_or_stays_full: "a process can have 16 million handles, and its address space has no limit of its own there";
    a_link_is_lost_when_its_receiver_has_no_descriptor_for_it: "a process can have 16 million handles, and its address space has no limit of its own there";
    a_link_is_lost_when_its_receiver_has_no_address_space_for_it: "a process can have 16 million handles, and its address space has no limit of its own there";
    a_member_without_descriptors_is_lost_when_the_controller_dies: "a process can have 16 million handles, and its address space has no limit of its own there";
    what_does_not_fit_into_the_channel_to_the_controller_is_never_said: "a process can have 16 million handles, and its address space has no limit of its own there";
    joins_leak: "what it leaves behind is counted in /proc, which is not there";
    attachments_leak: "what it leaves behind is counted in /proc, which is not there";
    ten_thousand_joins_leak: "what it leaves behind is counted in /proc, which is not there";
    a_million_attachments_leak: "what it leaves behind is counted in /proc, which is not there";
    an_idle_link_keeps_its_memory: "what it leaves behind is counted in /proc, which is not there";
    links_of_dead_senders_pile_up_at_who_never_waits: "what it leaves behind is counted in /proc, which is not there";
    a_message_is_lost_or_reordered_when_a_link_is_ended_as_idle: "what it leaves behind is counted in /proc, which is not there";
    a_pause_of_everybody_costs_a_message_or_a_membership: "what it leaves behind is counted in /proc, which is not there";
    an_endpoint_of_the_parent_works_in_a_forked_child: "there is no fork";
    a_forked_child_keeps_the_name_of_a_dead_controller: "there is no fork";
    a_forked_child_holds_no_region: "there is no fork";
    a_send_that_is_blocked_for_long_does_not_say_whom_it_waits_for: "it fills a table of descriptors, and a suspended process is not known there";
    a_shortage_fills_the_log: "it fills a table of descriptors, and a suspended process is not known there";
    a_path_that_cannot_be_used_is_not_named: "it is about descriptors, signals, limits or paths, which are not there";
    a_limit_on_the_size_of_files_ends_the_process: "it is about descriptors, signals, limits or paths, which are not there";
    a_missing_proc_is_not_named: "it is about descriptors, signals, limits or paths, which are not there";
    a_full_side_channel_costs_a_message_or_its_order: "it is about descriptors, signals, limits or paths, which are not there";
    a_link_whose_sender_goes_before_it_is_accepted_loses_what_lies_in_it: "it hands over sockets, which are no objects there";
    a_starved_machine_costs_a_message_or_a_membership: "the tests of endurance count on what Unix has";
}
