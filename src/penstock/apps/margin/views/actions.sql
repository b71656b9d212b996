-- Every step up or down the ladder that was taken, one row each: what the desk looks back at.
SELECT DISTINCT
    action_id,
    account_id,
    "at",
    episode,
    previous_state,
    state,
    reason,
    amount,
    causes
FROM enforcement
