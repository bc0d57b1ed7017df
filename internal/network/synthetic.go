package network

import (
	"bufio"
	"encoding/json"
	"io"
	"net/netip"
	"sync"

	"github.com/smolvm/smolvm/errdefs"
)

// Synthetic addresses lie in 198.18.0.0/15; its first 256 stay free for the gateway's own use.
const (
	firstSynthetic = 198<<24 | 18<<16 | 1<<8
	// maxSynthetic bounds the table: a hostile guest may ask for names below a wildcard without end.
	maxSynthetic = 16_384
)

// Synthetic gives names addresses in 198.18.0.0/15, each its own for the VM's life. It is safe for concurrent use.
type Synthetic struct {
	mu      sync.RWMutex
	names   []string // the address is firstSynthetic + index
	index   map[string]int32
	journal io.Writer
	failed  error // of the journal
}

// NewSynthetic returns an empty table. When journal is not nil, each new name is written to it, in the form that Load reads,
// before its address is told: one that a guest knows is never given to another name.
func NewSynthetic(journal io.Writer) *Synthetic {
	return &Synthetic{index: map[string]int32{}, journal: journal}
}

// Load adds what Save wrote, or a journal. It is called before the table is used. A last line that is not whole is of a
// gateway that died while it wrote it: nobody was told its address.
func (s *Synthetic) Load(r io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := bufio.NewReader(io.LimitReader(r, maxSynthetic*(maxName+16)))
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { //nolint:errorlint // the reader's own
			return nil
		}
		if err != nil {
			return errdefs.Host.Errorf("read the synthetic addresses: %w", err)
		}
		var name string
		if err := json.Unmarshal(line, &name); err != nil || !plain(name) {
			return errdefs.Internal.Errorf("the synthetic addresses: line %d is broken", len(s.names)+1)
		}
		if _, there := s.index[name]; there || len(s.names) == maxSynthetic {
			return errdefs.Internal.Errorf("the synthetic addresses: line %d cannot be", len(s.names)+1)
		}
		s.add(name)
	}
}

func (s *Synthetic) add(name string) int32 {
	i := int32(len(s.names))
	s.names = append(s.names, name)
	s.index[name] = i
	return i
}

// Save writes the table.
func (s *Synthetic) Save(w io.Writer) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := bufio.NewWriter(w)
	for _, name := range s.names {
		_, _ = b.Write(line(name)) // Flush tells
	}
	return b.Flush()
}

// line needs no escapes: canonical names have no such characters.
func line(name string) []byte { return []byte(`"` + name + "\"\n") }

// Addr returns the address of a canonical name, a new one where it had none. The zero address means that there is none for
// it: the table is full, it could not be kept, or the name is not canonical.
func (s *Synthetic) Addr(name string) netip.Addr {
	s.mu.RLock()
	i, there := s.index[name]
	s.mu.RUnlock()
	if there {
		return synthetic(i)
	}
	if !plain(name) {
		return netip.Addr{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, there := s.index[name]; there {
		return synthetic(i)
	}
	if len(s.names) == maxSynthetic || s.failed != nil {
		return netip.Addr{}
	}
	if s.journal != nil {
		if _, s.failed = s.journal.Write(line(name)); s.failed != nil {
			return netip.Addr{} // half a line may be there: what came behind it could not be read
		}
	}
	return synthetic(s.add(name))
}

func synthetic(i int32) netip.Addr {
	n := firstSynthetic + uint32(i)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// Name returns the name that an address stands for.
func (s *Synthetic) Name(addr netip.Addr) (string, bool) {
	if addr = addr.Unmap(); !addr.Is4() {
		return "", false
	}
	b := addr.As4()
	i := int64(uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3])) - firstSynthetic
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i < 0 || i >= int64(len(s.names)) {
		return "", false
	}
	return s.names[i], true
}
