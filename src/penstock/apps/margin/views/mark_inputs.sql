-- What is sampled at each mark of the grid; NULL where a position has no price.
SELECT
    m.account_id,
    m.call_amount AS deficit,
    m.equity - m.initial_requirement AS initial_excess,
    f.flow,
    m.as_of
FROM margins m
JOIN flows f ON f.account_id = m.account_id
