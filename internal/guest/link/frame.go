package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

// Kinds of frames.
const (
	kindSyn = iota + 1
	kindAck
	kindData
	kindFin
	kindEnd // first number that is none
)

const (
	headerSize = 24
	// maxPayload bounds a frame on both ways.
	maxPayload = 64 << 10
	// sendPayload is what a writer puts into one frame: the guest's driver hands over at most 32 KiB at a time.
	sendPayload = 32<<10 - headerSize
)

var (
	magic      = [4]byte{0xF1, 'S', 'v', 'L'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// errHangup is what a port's Read returns once when the host went away; reading may go on.
var errHangup = errors.New("link: host hung up")

// header is a frame's first 24 bytes: magic, kind, length (24 bits), epoch, sequence number, CRC-32C of what is before.
type header struct {
	kind   byte
	length int
	epoch  uint64
	seq    uint32
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b[4:], uint32(h.length)) //nolint:gosec // at most maxPayload
	copy(b, magic[:])
	b[4] = h.kind
	binary.BigEndian.PutUint64(b[8:], h.epoch)
	binary.BigEndian.PutUint32(b[16:], h.seq)
	binary.BigEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
}

// parse reads a header from the first headerSize bytes of b.
func parse(b []byte) (header, bool) {
	if !bytes.Equal(b[:4], magic[:]) || binary.BigEndian.Uint32(b[20:24]) != crc32.Checksum(b[:20], castagnoli) {
		return header{}, false
	}
	h := header{
		kind:   b[4],
		length: int(binary.BigEndian.Uint32(b[4:8]) & 0xffffff),
		epoch:  binary.BigEndian.Uint64(b[8:16]),
		seq:    binary.BigEndian.Uint32(b[16:20]),
	}
	ok := h.kind >= kindSyn && h.kind < kindEnd && h.length <= maxPayload && (h.kind == kindData || h.length == 0)
	return h, ok
}

// scanner takes frames apart. It is not safe for use by several goroutines.
type scanner struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is unread
	left int // payload of the present frame that was not read yet
}

func newScanner(src io.Reader) *scanner { return &scanner{src: src, buf: make([]byte, maxPayload)} }

// fill reads once into the buffer, which has room.
func (s *scanner) fill() error {
	if s.r == s.w {
		s.r, s.w = 0, 0
	} else if s.w == len(s.buf) {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	n, err := s.src.Read(s.buf[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	return err
}

// next returns the next valid header. garbage tells that bytes were skipped before it. The payload of a former frame that
// was not read is passed over.
func (s *scanner) next() (h header, garbage bool, err error) {
	for {
		skip := min(s.left, s.w-s.r)
		s.r += skip
		s.left -= skip
		for s.left == 0 && s.w-s.r >= headerSize {
			h, ok := parse(s.buf[s.r:s.w])
			if ok {
				s.r += headerSize
				s.left = h.length
				return h, garbage, nil
			}
			garbage = true
			s.r++
			// Jump to where the next header could begin.
			if i := bytes.IndexByte(s.buf[s.r:s.w], magic[0]); i >= 0 {
				s.r += i
			} else {
				s.r = s.w
			}
		}
		if err := s.fill(); err != nil {
			return header{}, garbage, err
		}
	}
}

// payload reads from the present frame, which has some left.
func (s *scanner) payload(p []byte) (int, error) {
	p = p[:min(len(p), s.left)]
	if s.r == s.w && len(p) < len(s.buf)/2 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	var n int
	var err error
	if s.r < s.w {
		n = copy(p, s.buf[s.r:s.w])
		s.r += n
	} else {
		n, err = s.src.Read(p)
	}
	s.left -= n
	return n, err
}

// reset forgets everything that was read, for a source that begins anew.
func (s *scanner) reset() { s.r, s.w, s.left = 0, 0, 0 }

// sender puts frames together; several goroutines may use it.
type sender struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
	seq uint32
}

func newSender(dst io.Writer) *sender {
	return &sender{dst: dst, buf: make([]byte, headerSize+sendPayload)}
}

// begin makes the numbers of a new connection start at zero and sends its first frame.
func (s *sender) begin(kind byte, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq = 0
	return s.frame(kind, epoch, nil)
}

// send sends one frame of at most sendPayload bytes if live, asked under the lock, agrees.
func (s *sender) send(kind byte, epoch uint64, p []byte, live func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := live(); err != nil {
		return err
	}
	return s.frame(kind, epoch, p)
}

func (s *sender) frame(kind byte, epoch uint64, p []byte) error {
	h := header{kind: kind, length: len(p), epoch: epoch}
	if kind == kindData || kind == kindFin {
		s.seq++
		h.seq = s.seq
	}
	h.put(s.buf)
	n := headerSize + copy(s.buf[headerSize:], p)
	_, err := s.dst.Write(s.buf[:n])
	return err
}
