"""The rules of the commit, gc and repack protocol, one switch each, with the schedule each one prevents.

A rule that is off plants exactly one bug; `test_protocol_model.py` shows that the model finds it.
"""

from dataclasses import dataclass, field, fields

__all__ = ["COST_ONLY", "RULES", "Rules", "story"]


def rule(story: str) -> bool:
    return field(default=True, metadata={"story": " ".join(story.split())})  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules on is the protocol. In the stories W is a writer, V a version, p q r are packs, n a slot."""

    # ---- the slot -------------------------------------------------------------------------------------
    create_is_if_absent: bool = rule("""W1 and W2 both see slot n empty and both write it (check, then write).
        Both are told yes; the second has replaced the first, whose acknowledged commit is gone.""")
    slot_is_decided_before_the_next: bool = rule("""W's create of slot n gets no reply, so W takes slot n+1.
        Either n was never applied, and the log has a gap that hides n+1 from all; or it was (or it arrives
        late), and W's commit stands twice.""")
    unknown_is_read_back: bool = rule("""W's create of slot n gets no reply and W takes that for success. The
        request was lost: an acknowledged commit is in no slot.""")
    read_back_compares_the_id: bool = rule("""W's create of slot n is lost, another's entry lands there, W reads
        n back, sees that it is taken and calls it its own: an acknowledged commit is in no slot.""")
    own_id_is_looked_for: bool = rule("""W's create of slot n is applied, the reply lost. W repeats it, is told
        that n is taken, believes it lost to another and commits again at n+1: one commit stands twice.""")
    repeat_searches_the_whole_fold: bool = rule("""W gives up with the outcome unknown (or is killed), and its
        entry lands. Others go on. W repeats the commit and looks for its id only in entries it has not read
        yet: one commit stands twice.""")
    whole_body_is_compared: bool = rule("""A step runs twice with one commit id but makes different contents. The
        first run commits; the second finds its own id in the log and reports success, though the contents it
        acknowledges are nowhere. A differing body must be a typed conflict.""")
    unknown_draft_refuses_changes: bool = rule("""W gives up on slot n with the outcome unknown, the user changes
        the draft, and the changed body gets an id of its own and is committed. The old request arrived after
        all: one draft has become two versions.""")
    # ---- writers --------------------------------------------------------------------------------------
    packs_before_entry: bool = rule("""W appends its entry and then uploads. It is killed in between (or a reader
        is quicker): a version stands whose packs do not exist.""")
    pack_put_is_acknowledged: bool = rule("""The upload of p gets no reply and W goes on to its entry. The upload
        was lost: a version stands whose pack does not exist.""")
    hits_are_checked_at_s: bool = rule("""W read p's footer long ago. gc condemned p at slot 5 and deleted it. W
        starts a draft at S = 9 and takes a chunk from p because its index knows it; nothing after 9 names p.""")
    s_stays_the_lowest: bool = rule("""W takes a hit in p at S = 5. gc condemns p at 6. W goes on with a fold of
        slot 7, takes more hits and sets S = 7; at commit nothing after 7 condemns p, so V names it.""")
    condemned_after_s_is_rechecked: bool = rule("""W takes a hit in p, which nothing lives from, at S = 5. gc
        condemns p at 6 and deletes it. W commits at 7 without looking at 6: V names a deleted pack.""")
    repack_after_s_is_rechecked: bool = rule("""p holds live frames and a dead one. W takes the dead one at S = 5.
        Repack copies the live ones and condemns p at 6, with no row for the dead frame. W looks only at
        `condemned` entries and commits at 7: V names a frame that no row saves.""")
    losing_a_slot_rechecks: bool = rule("""W checks its draft, finds it good and tries slot 6; gc's `condemned`
        wins 6 and names a pack of W's. W moves on to slot 7 with the same body.""")
    whole_subtree_needs_a_live_parent: bool = rule("""W's draft takes a subtree of V1 unvisited. V1 is deleted, gc
        condemns its packs. W re-checks only the places it chose itself and skips the subtree because V1 was
        live when the draft was made: V2 names deleted nodes.""")
    lost_chunks_stop_the_commit: bool = rule("""W's hit in p is condemned, the source file has changed and p is
        deleted already: nobody has these bytes. W commits all the same instead of raising ChunksLost.""")
    source_stat_is_checked: bool = rule("""W's hit in p is condemned and W sends the chunk again from the source
        file, which has been edited since it was hashed: V holds other bytes than its content ids say.""")
    only_gc_deletes: bool = rule("""W1 uploads p, W2 reads p's footer and takes a hit in it. W1's draft is
        discarded and W1 deletes p. W2 commits: no entry condemned p, so no re-check could tell.""")
    pack_names_are_never_reused: bool = rule("""gc condemns W's unfinished p. W sends the chunks again under the
        name p and commits. The `condemned` entry still stands: whoever resumes it (or a DELETE still under way)
        deletes the new data.""")
    # ---- gc -------------------------------------------------------------------------------------------
    gc_recomputes_after_losing: bool = rule("""gc finds p dead at slot 5. W, with S = 5, takes a hit in p and wins
        slot 6. gc appends its old list at 7 and deletes p: V loses a chunk.""")
    gc_deletes_after_its_entry: bool = rule("""gc finds p dead and deletes it before its entry stands. W, who took
        a hit in p, commits in between: nothing in the log could have told it.""")
    gc_resumes_what_others_began: bool = rule("""gc appends `condemned` and is killed before it deletes. The next gc
        deletes only what it condemned itself: p is never named by anything again and never goes away.""")
    condemned_is_never_forgotten: bool = rule("""p was condemned and deleted long ago; a tidy gc drops names that
        no longer exist from the fold. W's index still holds p's footer, the fold does not condemn p, so W
        takes a hit in a pack that is gone.""")
    live_follows_relocation: bool = rule("""Repack moved V's frames from p to q; V's nodes still say p. gc walks V
        and marks p, not q: q looks dead and is deleted.""")
    live_includes_lists: bool = rule("""The names that gc condemned at slot 5 lie in a pack, being many. The next
        gc reaches versions only, condemns that pack too, and nobody can fold slot 5 again.""")
    gc_writes_its_list_again: bool = rule("""gc A uploads the pack with its list. gc B, who sees a pack that no
        entry names, condemns it and wins the slot. A appends its entry with the list where it was.""")
    rows_live_while_named: bool = rule("""Repack moved V's frames from p to q. p is deleted, and gc drops the rows
        of p as done with. V's nodes, which never change, still say p.""")
    # ---- holds: progress, never safety -----------------------------------------------------------------
    gc_respects_holds: bool = rule("""A slow W lost its packs to gc once and holds the names of the new ones. gc
        condemns them again, and again: W never gets to commit.""")
    hold_names_packs_before_upload: bool = rule("""W uploads p and then appends the hold that names it. gc lists p
        and condemns it in between: the hold comes too late, and can do so each time.""")
    # ---- repack -----------------------------------------------------------------------------------------
    repack_adds_the_winners_frames: bool = rule("""Repack copies the live frames of p. W takes a frame of p that
        was dead and wins the slot. Repack condemns p at the next one without a row for that frame.""")
    repack_copies_again: bool = rule("""Repack uploads q. gc sees a pack that no entry names, condemns q and wins
        the slot. Repack appends rows that point into q.""")
    rows_merge_to_one_step: bool = rule("""Repack moves a frame from p to q, a later one from q to r. V says p;
        the row of p still says q, which is deleted.""")
    repack_leaves_list_packs: bool = rule("""Repack moves the pack that holds a long list of slot 5 (condemned
        names, or rows). The log entry still says the old place, which only rows of a later entry translate: a
        machine that folds the log in order cannot read slot 5. (Or lists are read newest entry first.)""")
    # ---- readers ----------------------------------------------------------------------------------------
    reader_translates: bool = rule("""Repack moved V's frames from p to q and p is deleted. A reader looks for
        them where V's nodes say, and calls a live version corrupt.""")
    reader_rereads_the_tail: bool = rule("""A reader folds the log; then repack moves p to q and p is deleted. The
        reader does not find p and gives up, though the tail would have told it where to look.""")
    reader_retries_while_the_tail_moves: bool = rule("""A reader misses p, reads the tail, is sent to q; meanwhile
        a second repack moved q to r and q is deleted. One retry is not enough.""")
    # ---- kept for cost ------------------------------------------------------------------------------------
    relocated_places_are_rewritten: bool = rule("""Not needed for safety: a place that the fold resolves before the
        commit is named by a live node after it, so its row lives. Rewriting lets rows die and keeps reads from
        going through them.""")


COST_ONLY = ("relocated_places_are_rewritten",)
RULES = tuple(f.name for f in fields(Rules) if f.name not in COST_ONLY)


def story(name: str) -> str:
    """The schedule that the rule prevents, as one paragraph."""
    return next(str(f.metadata["story"]) for f in fields(Rules) if f.name == name)
