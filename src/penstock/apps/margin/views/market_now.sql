-- How long the market has been open until the newest tick of the clock, in microseconds of market time.
SELECT c.open_before_us + epoch_us(least(t.at, c.closes_at)) - epoch_us(c.opens_at) AS now_us
FROM market_calendar c
JOIN (SELECT max(tick.at) AS at FROM tick) t ON t.at >= c.opens_at AND t.at < c.next_opens_at
