// River at its fastest: jobs inserted by COPY, fetched as soon as there is room. Prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const connections = 20

// Numbers of workers that are tried; the fastest counts.
var workerCounts = []int{100, 500, 2_000}

type noop struct {
	N int `json:"n"`
}

func (noop) Kind() string { return "noop" }

type noopWorker struct {
	river.WorkerDefaults[noop]
	ran *atomic.Int64
}

func (w *noopWorker) Work(context.Context, *river.Job[noop]) error {
	w.ran.Add(1)
	return nil
}

func main() {
	command, url, count := os.Args[1], os.Args[2], number(os.Args[3])
	ctx := context.Background()
	pool := must(connect(ctx, url))
	migrator := must(rivermigrate.New(riverpgxv5.New(pool), nil))
	must(migrator.Migrate(ctx, rivermigrate.DirectionUp, nil))
	var took time.Duration
	if command == "drain" {
		took = fastest(ctx, pool, count)
	} else {
		took = enqueue(ctx, pool, count, number(os.Args[4]))
	}
	line := must(json.Marshal(map[string]any{"jobs": count, "seconds": took.Seconds()}))
	os.Stdout.Write(append(line, '\n'))
}

func connect(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	return pgxpool.NewWithConfig(ctx, config)
}

func enqueue(ctx context.Context, pool *pgxpool.Pool, count, batch int) time.Duration {
	client := must(river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: quiet()}))
	began := time.Now()
	for first := 0; first < count; first += batch {
		tx := must(pool.Begin(ctx))
		insert(ctx, client, tx, first, min(batch, count-first))
		check(tx.Commit(ctx))
	}
	return time.Since(began)
}

func insert(ctx context.Context, client *river.Client[pgx.Tx], tx pgx.Tx, first, batch int) {
	if batch == 1 {
		must(client.InsertTx(ctx, tx, noop{first}, nil))
		return
	}
	jobs := make([]river.InsertManyParams, batch)
	for n := range jobs {
		jobs[n].Args = noop{first + n}
	}
	must(client.InsertManyFastTx(ctx, tx, jobs))
}

func fastest(ctx context.Context, pool *pgxpool.Pool, count int) time.Duration {
	var best time.Duration
	for _, workers := range workerCounts {
		must(pool.Exec(ctx, "TRUNCATE river_job"))
		if took := drain(ctx, pool, count, workers); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// Its defaults, a fetch every 100 ms and a poll every second, would be unfair.
func drain(ctx context.Context, pool *pgxpool.Pool, count, workers int) time.Duration {
	enqueue(ctx, pool, count, 1_000)
	must(pool.Exec(ctx, "VACUUM ANALYZE river_job"))
	must(pool.Exec(ctx, "CHECKPOINT"))
	var ran atomic.Int64
	known := river.NewWorkers()
	river.AddWorker(known, &noopWorker{ran: &ran})
	client := must(river.NewClient(riverpgxv5.New(pool), &river.Config{
		Logger:            quiet(),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: 2 * time.Millisecond,
		Workers:           known,
	}))
	began := time.Now()
	check(client.Start(ctx))
	for ran.Load() < int64(count) || isOpen(ctx, pool) {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	check(client.Stop(ctx))
	return took
}

// Whether some job is not done, by River's own index.
func isOpen(ctx context.Context, pool *pgxpool.Pool) (some bool) {
	const sql = "SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'pending'))"
	check(pool.QueryRow(ctx, sql).Scan(&some))
	return some
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func number(text string) int { return must(strconv.Atoi(text)) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
