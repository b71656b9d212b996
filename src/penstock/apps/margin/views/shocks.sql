-- The scenarios, each with its shock of the index (0 where it moves single symbols only).
SELECT
    scenario,
    coalesce(max(shock) FILTER (WHERE symbol IS NULL), 0) AS shock,
    count(*) FILTER (WHERE symbol IS NOT NULL) = 0 AS of_index
FROM scenarios
GROUP BY scenario
