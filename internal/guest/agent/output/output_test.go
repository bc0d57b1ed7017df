package output

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// drain reads everything from an offset on that is there.
func drain(l *Log, at uint64) (text string, gap uint64) {
	var b strings.Builder
	buf := make([]byte, 7)
	for {
		p := l.Read(at, buf)
		switch {
		case p.Gap > 0:
			gap += p.Gap
			at += p.Gap
		case p.N > 0:
			if p.Stream == Stderr {
				b.WriteString(strings.ToUpper(string(buf[:p.N])))
			} else {
				b.Write(buf[:p.N])
			}
			at += uint64(p.N)
		default:
			return b.String(), gap
		}
	}
}

func TestLog(t *testing.T) {
	k := NewKeeper(8<<10, 64<<10)
	l := k.Open()
	l.Write(Stdout, []byte("one "))
	l.Write(Stderr, []byte("two "))
	l.Write(Stdout, []byte("three"))
	if got, gap := drain(l, 0); got != "one TWO three" || gap != 0 {
		t.Errorf("%q, %d bytes gone", got, gap)
	}
	if got, _ := drain(l, 6); got != "O three" {
		t.Errorf("from 6: %q", got)
	}
	l.Write(Stdout, bytes.Repeat([]byte("x"), 8<<10-3))
	l.Write(Stdout, []byte("end"))
	got, gap := drain(l, 0)
	if len(got) != 8<<10 || gap != 13 || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes kept, %d gone", len(got), gap)
	}
	l.Write(Stdout, append(bytes.Repeat([]byte("y"), 20<<10), "last"...))
	if got, _ := drain(l, 0); len(got) != 8<<10 || !strings.HasSuffix(got, "ylast") || strings.Contains(got, "x") {
		t.Errorf("after one write that is larger than the ring: %d bytes", len(got))
	}
	p := l.Read(l.to, nil)
	if p.Ended || p.More == nil {
		t.Fatalf("%+v", p)
	}
	l.End()
	<-p.More
	if p := l.Read(l.to, nil); !p.Ended {
		t.Errorf("%+v", p)
	}
	l.Drop()
	if k.used != 0 || len(k.logs) != 0 {
		t.Errorf("%d bytes are still used", k.used)
	}
	l.Write(Stdout, []byte("late"))
	if _, gap := drain(l, 0); gap != l.to {
		t.Errorf("%d of %d bytes gone", gap, l.to)
	}
}

// TestManyStreams: output that changes its stream all the time costs no more than other output.
func TestManyStreams(t *testing.T) {
	l := NewKeeper(1<<20, 1<<20).Open()
	for range 3 * maxSegments {
		l.Write(Stdout, []byte("a"))
		l.Write(Stderr, []byte("b"))
	}
	got, gap := drain(l, 0)
	if len(l.segments) > maxSegments || len(got) < maxSegments/2 || len(strings.ReplaceAll(got, "aB", "")) > 1 || gap == 0 {
		t.Errorf("%d segments, %d bytes kept, %d gone", len(l.segments), len(got), gap)
	}
}

// TestAll: all rings together stay below their limit, and the small ones are spared.
func TestAll(t *testing.T) {
	k := NewKeeper(64<<10, 128<<10)
	small := k.Open()
	small.Write(Stdout, []byte("small"))
	var big []*Log
	for range 10 {
		l := k.Open()
		l.Write(Stdout, bytes.Repeat([]byte("z"), 64<<10))
		l.End()
		big = append(big, l)
	}
	sum := 0
	for l := range k.logs {
		sum += len(l.buf)
	}
	if sum != k.used || sum > k.all {
		t.Errorf("%d bytes in rings, %d are counted, %d allowed", sum, k.used, k.all)
	}
	if got, gap := drain(small, 0); got != "small" || gap != 0 {
		t.Errorf("of the small one %q is left", got)
	}
	if got, _ := drain(big[9], 0); len(got) < 4<<10 {
		t.Errorf("of the newest %d bytes are left", len(got))
	}
}

// TestReaders: readers at their own pace see what there is, in order, and count what is not.
func TestReaders(t *testing.T) {
	l := NewKeeper(4<<10, 1<<20).Open()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			var at, seen, gone uint64
			buf := make([]byte, 100)
			for {
				p := l.Read(at, buf)
				for i := range p.N {
					if buf[i] != byte((at+uint64(i))%251) {
						t.Errorf("byte %d is %d", at+uint64(i), buf[i])
						return
					}
				}
				at, seen, gone = at+uint64(p.N)+p.Gap, seen+uint64(p.N), gone+p.Gap
				if p.Ended {
					break
				}
				if p.More != nil {
					<-p.More
				}
			}
			if at != 1<<20 || seen+gone != at {
				t.Errorf("at %d, %d seen, %d gone", at, seen, gone)
			}
		})
	}
	for at := 0; at < 1<<20; {
		p := make([]byte, min(1+rand.IntN(5000), 1<<20-at))
		for i := range p {
			p[i] = byte((at + i) % 251)
		}
		l.Write(Stream(1+rand.IntN(2)), p)
		at += len(p)
	}
	l.End()
	wait.Wait()
}

// FuzzLog: whatever is written and read, a log is what a plain one would be, cut.
func FuzzLog(f *testing.F) {
	f.Add([]byte{1, 200, 2, 3, 255, 255, 9}, uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		k := NewKeeper(4<<10, 6<<10)
		l, other := k.Open(), k.Open()
		var all []byte
		for i, n := range b {
			p := bytes.Repeat([]byte{byte(i)}, int(n)*int(n)/8)
			if n%5 == 0 {
				other.Write(Stdout, p)
				continue
			}
			l.Write(Stream(1+n%2), p)
			all = append(all, p...)
		}
		from, to := l.Bounds()
		if int(to) != len(all) || from > to || k.used > k.all {
			t.Fatalf("%d to %d of %d, %d used", from, to, len(all), k.used)
		}
		buf := make([]byte, 64)
		for o := uint64(at); o < to; {
			p := l.Read(o, buf)
			if !bytes.Equal(buf[:p.N], all[min(o, to):min(o+uint64(p.N), to)]) && p.N > 0 || p.N == 0 && p.Gap == 0 {
				t.Fatalf("at %d: %+v", o, p)
			}
			o += uint64(p.N) + p.Gap
		}
	})
}
