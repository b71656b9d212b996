-- What each scenario does to each account: with the requirement computed again (which rules), and as it is now.
SELECT
    q.account_id,
    q.scenario,
    s.shock,
    s.of_index,
    q.equity - m.equity AS pnl,
    q.equity,
    q.requirement,
    q.equity - q.requirement AS excess,
    q.equity - m.requirement AS excess_frozen
FROM stress_requirements q
JOIN shocks s ON s.scenario = q.scenario
JOIN margins m ON m.account_id = q.account_id
