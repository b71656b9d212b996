-- The newest average cost of each position.
SELECT DISTINCT ON (account_id, symbol)
    account_id, symbol, average_cost, opened_long, closed_long, opened_short, closed_short
FROM fold_costs
ORDER BY account_id, symbol, fills DESC
