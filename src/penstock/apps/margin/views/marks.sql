-- The newest mark of each account.
SELECT DISTINCT ON (account_id) account_id, mark, sma, intraday_deficit FROM fold_marks ORDER BY account_id, mark DESC
