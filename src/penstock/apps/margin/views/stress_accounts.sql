-- Each account under each scenario.
SELECT s.scenario, b.account_id, b.cash FROM cash_balances b CROSS JOIN shocks s
