-- What a scenario does to single symbols; this rules there, not the shock of the index.
SELECT scenario, symbol, max(shock) AS shock
FROM scenarios
WHERE symbol IS NOT NULL
GROUP BY scenario, symbol
