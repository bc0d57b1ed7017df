package firecracker

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"sync"

	"github.com/smolvm/smolvm/internal/engine"
)

// maxMetrics bounds a line of metrics: one has about 20 KiB, and a few KiB more per device.
const maxMetrics = 1 << 20

// metrics adds up what the monitor counts: each of its lines tells what came since the line before.
type metrics struct {
	drives map[string]string // Firecracker's name of a drive's counters to the drive's ID

	mu    sync.Mutex
	sum   map[string]engine.BlockStats
	lines int
	next  chan struct{} // closed at the next line
	ended bool
}

func newMetrics(drives []engine.Drive) *metrics {
	m := &metrics{drives: map[string]string{}, sum: map[string]engine.BlockStats{}, next: make(chan struct{})}
	for _, d := range drives {
		m.drives["block_"+apiID(d.ID)] = d.ID
		m.sum[d.ID] = engine.BlockStats{}
	}
	return m
}

// read reads until r ends. A line that is none of ours is passed over.
func (m *metrics) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMetrics)
	for lines.Scan() {
		m.add(lines.Bytes())
	}
	_, _ = io.Copy(io.Discard, r) // after a line too long nothing is counted, and the monitor must not wait
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	close(m.next)
}

func (m *metrics) add(line []byte) {
	var all map[string]json.RawMessage
	if json.Unmarshal(line, &all) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, value := range all {
		id, ok := m.drives[key]
		if !ok || !strings.HasPrefix(key, "block_") {
			continue
		}
		var n struct {
			ReadBytes  uint64 `json:"read_bytes"`
			WriteBytes uint64 `json:"write_bytes"`
			Reads      uint64 `json:"read_count"`
			Writes     uint64 `json:"write_count"`
			Flushes    uint64 `json:"flush_count"`
		}
		if json.Unmarshal(value, &n) != nil {
			continue
		}
		s := m.sum[id]
		s.ReadBytes += n.ReadBytes
		s.WriteBytes += n.WriteBytes
		s.Reads += n.Reads
		s.Writes += n.Writes
		s.Flushes += n.Flushes
		m.sum[id] = s
	}
	m.lines++
	close(m.next)
	m.next = make(chan struct{})
}

// now returns a channel that is closed at the next line, and whether there will be one.
func (m *metrics) now() (next <-chan struct{}, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next, m.ended
}

func (m *metrics) blocks() map[string]engine.BlockStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.sum)
}
