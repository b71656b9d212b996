-- Nexmark: the queries as published for Flink SQL, in DuckDB's dialect, over the three streams of the auction site.
-- q12 counts by event time (no view reads a clock); q13 joins a reference instead of a file; q14 counts letters with
-- SQL instead of a function of Java. q10 writes files by day and minute: its view gives both columns, the sink's URL the
-- folder.

CREATE STREAM person (
    id BIGINT NOT NULL, name VARCHAR NOT NULL, "emailAddress" VARCHAR NOT NULL, "creditCard" VARCHAR NOT NULL,
    city VARCHAR NOT NULL, state VARCHAR NOT NULL, "dateTime" TIMESTAMP NOT NULL, extra VARCHAR NOT NULL,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds'
) WITH (state = 'unbounded');

CREATE STREAM auction (
    id BIGINT NOT NULL, "itemName" VARCHAR NOT NULL, description VARCHAR NOT NULL, "initialBid" BIGINT NOT NULL,
    reserve BIGINT NOT NULL, "dateTime" TIMESTAMP NOT NULL, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL,
    category BIGINT NOT NULL, extra VARCHAR NOT NULL,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds'
) WITH (state = 'unbounded');

CREATE STREAM bid (
    auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR NOT NULL,
    url VARCHAR NOT NULL, "dateTime" TIMESTAMP NOT NULL, extra VARCHAR NOT NULL,
    WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4 seconds'
) WITH (state = 'unbounded');

CREATE REFERENCE side_input (key BIGINT PRIMARY KEY, value VARCHAR NOT NULL);

CREATE VIEW q0 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, "dateTime", extra FROM bid;

CREATE VIEW q1 WITH (state = 'unbounded') AS
SELECT auction, bidder, 0.908 * price AS price, "dateTime", extra FROM bid;

CREATE VIEW q2 WITH (state = 'unbounded') AS
SELECT auction, price FROM bid WHERE auction % 123 = 0;

CREATE VIEW q3 WITH (state = 'unbounded') AS
SELECT p.name, p.city, p.state, a.id
FROM auction AS a INNER JOIN person AS p ON a.seller = p.id
WHERE a.category = 10 AND (p.state = 'OR' OR p.state = 'ID' OR p.state = 'CA');

CREATE VIEW q4 WITH (state = 'unbounded') AS
SELECT q.category, avg(q.final) AS average
FROM (
    SELECT max(b.price) AS final, a.category
    FROM auction a, bid b
    WHERE a.id = b.auction AND b."dateTime" BETWEEN a."dateTime" AND a.expires
    GROUP BY a.id, a.category
) AS q
GROUP BY q.category;

CREATE VIEW q5 WITH (state = 'unbounded') AS
SELECT b.auction, b.num
FROM (
    SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
    FROM bid
    GROUP BY auction, hop("dateTime", INTERVAL '10 seconds', INTERVAL '2 seconds')
) AS b
JOIN (
    SELECT max(num) AS maxn, starttime, endtime
    FROM (
        SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
        FROM bid
        GROUP BY auction, hop("dateTime", INTERVAL '10 seconds', INTERVAL '2 seconds')
    ) AS counts
    GROUP BY starttime, endtime
) AS m ON b.starttime = m.starttime AND b.endtime = m.endtime AND b.num >= m.maxn;

CREATE VIEW q6 WITH (state = 'unbounded') AS
SELECT q.seller, q.id,
    avg(q.final) OVER (PARTITION BY q.seller ORDER BY q."dateTime", q.id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
        AS average
FROM (
    SELECT max(b.price) AS final, a.seller, a.id, max(b."dateTime") AS "dateTime"
    FROM auction AS a, bid AS b
    WHERE a.id = b.auction AND b."dateTime" BETWEEN a."dateTime" AND a.expires
    GROUP BY a.id, a.seller
) AS q;

CREATE VIEW q7 WITH (state = 'unbounded') AS
SELECT b.auction, b.price, b.bidder, b."dateTime", b.extra
FROM bid b
JOIN (
    SELECT max(price) AS maxprice, time_bucket(INTERVAL '10 seconds', "dateTime") AS window_start
    FROM bid
    GROUP BY time_bucket(INTERVAL '10 seconds', "dateTime")
) AS b1 ON b.price = b1.maxprice
WHERE b."dateTime" >= b1.window_start AND b."dateTime" < b1.window_start + INTERVAL '10 seconds';

CREATE VIEW q8 WITH (state = 'unbounded') AS
SELECT p.id, p.name, p.starttime
FROM (
    SELECT id, name, time_bucket(INTERVAL '10 seconds', "dateTime") AS starttime
    FROM person
    GROUP BY id, name, time_bucket(INTERVAL '10 seconds', "dateTime")
) AS p
JOIN (
    SELECT seller, time_bucket(INTERVAL '10 seconds', "dateTime") AS starttime
    FROM auction
    GROUP BY seller, time_bucket(INTERVAL '10 seconds', "dateTime")
) AS a ON p.id = a.seller AND p.starttime = a.starttime;

CREATE VIEW q9 WITH (state = 'unbounded') AS
SELECT id, "itemName", description, "initialBid", reserve, "dateTime", expires, seller, category, extra, auction,
    bidder, price, bid_datetime, bid_extra
FROM (
    SELECT a.*, b.auction, b.bidder, b.price, b."dateTime" AS bid_datetime, b.extra AS bid_extra,
        row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b."dateTime" ASC) AS rownum
    FROM auction a, bid b
    WHERE a.id = b.auction AND b."dateTime" BETWEEN a."dateTime" AND a.expires
) AS ranked
WHERE rownum <= 1;

CREATE VIEW q10 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, "dateTime", extra, strftime("dateTime", '%Y-%m-%d') AS dt,
    strftime("dateTime", '%H:%M') AS hm
FROM bid;

CREATE VIEW q11 WITH (state = 'unbounded') AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM bid
GROUP BY bidder, session("dateTime", INTERVAL '10 seconds');

CREATE VIEW q12 WITH (state = 'unbounded') AS
SELECT bidder, count(*) AS bid_count, time_bucket(INTERVAL '10 seconds', "dateTime") AS starttime,
    time_bucket(INTERVAL '10 seconds', "dateTime") + INTERVAL '10 seconds' AS endtime
FROM bid
GROUP BY bidder, time_bucket(INTERVAL '10 seconds', "dateTime");

CREATE VIEW q13 WITH (state = 'unbounded') AS
SELECT b.auction, b.bidder, b.price, b."dateTime", s.value
FROM bid AS b JOIN side_input AS s ON b.auction % 10000 = s.key;

CREATE VIEW q14 WITH (state = 'unbounded') AS
SELECT auction, bidder, 0.908 * price AS price,
    CASE
        WHEN hour("dateTime") >= 8 AND hour("dateTime") <= 18 THEN 'dayTime'
        WHEN hour("dateTime") <= 6 OR hour("dateTime") >= 20 THEN 'nightTime'
        ELSE 'otherTime'
    END AS bid_time_type,
    "dateTime", extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;

CREATE VIEW q15 WITH (state = 'unbounded') AS
SELECT strftime("dateTime", '%Y-%m-%d') AS day, count(*) AS total_bids,
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
    count(DISTINCT bidder) AS total_bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
    count(DISTINCT auction) AS total_auctions,
    count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
FROM bid
GROUP BY strftime("dateTime", '%Y-%m-%d');

CREATE VIEW q16 WITH (state = 'unbounded') AS
SELECT channel, strftime("dateTime", '%Y-%m-%d') AS day, max(strftime("dateTime", '%H:%M')) AS minute,
    count(*) AS total_bids,
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
    count(DISTINCT bidder) AS total_bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
    count(DISTINCT auction) AS total_auctions,
    count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
FROM bid
GROUP BY channel, strftime("dateTime", '%Y-%m-%d');

CREATE VIEW q17 WITH (state = 'unbounded') AS
SELECT auction, strftime("dateTime", '%Y-%m-%d') AS day, count(*) AS total_bids,
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
    min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM bid
GROUP BY auction, strftime("dateTime", '%Y-%m-%d');

CREATE VIEW q18 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, channel, url, "dateTime", extra
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS rank_number FROM bid
) AS ranked
WHERE rank_number <= 1;

CREATE VIEW q19 WITH (state = 'unbounded') AS
SELECT *
FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM bid) AS ranked
WHERE rank_number <= 10;

CREATE VIEW q20 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, channel, url, b."dateTime", b.extra, "itemName", description, "initialBid", reserve,
    a."dateTime" AS auction_datetime, expires, seller, category, a.extra AS auction_extra
FROM bid AS b INNER JOIN auction AS a ON b.auction = a.id
WHERE a.category = 10;

CREATE VIEW q21 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, channel,
    CASE
        WHEN lower(channel) = 'apple' THEN '0'
        WHEN lower(channel) = 'google' THEN '1'
        WHEN lower(channel) = 'facebook' THEN '2'
        WHEN lower(channel) = 'baidu' THEN '3'
        ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2)
    END AS channel_id
FROM bid
WHERE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) <> ''
    OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu');

CREATE VIEW q22 WITH (state = 'unbounded') AS
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2,
    split_part(url, '/', 6) AS dir3
FROM bid;
