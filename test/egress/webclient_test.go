package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// partClient is the hostile client for HTTP, this very program in the guest.
const partClient = "client"

const patience = 60 * time.Second // under emulation on a busy machine

// runClient tries one way: the last line that it prints is "allow" or "deny" and a few words.
func runClient() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience) //nolint:forbidigo // a program's own
	defer cancel()
	probes := map[string]func(context.Context, ...string) (string, error){
		"get": probeGet, "raw": probeRaw, "grpc": probeGRPC, "ws": probeSocket, "events": probeEvents, "hold": probeHold, "ech": probeECH,
	}
	how, err := probes[os.Args[1]](ctx, os.Args[2:]...)
	if err != nil {
		fmt.Println("deny", strings.ReplaceAll(err.Error(), "\n", " "))
	} else {
		fmt.Println("allow", how)
	}
	os.Exit(0)
}

func transport(version string) *http.Client {
	p := &http.Protocols{}
	p.SetHTTP1(version == "1")
	p.SetHTTP2(version == "2")
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableCompression: true}, Timeout: patience}
}

// probeGet: VERSION URL [METHOD=…] [BODY=…] [NAME: VALUE]…
func probeGet(ctx context.Context, args ...string) (string, error) {
	method, header, host := http.MethodGet, http.Header{}, ""
	var body io.Reader
	for i := range args { // a secret is a variable in the guest
		args[i] = os.ExpandEnv(args[i])
	}
	for _, a := range args[2:] {
		switch name, value, _ := strings.Cut(a, ": "); {
		case strings.HasPrefix(a, "METHOD="):
			method = strings.TrimPrefix(a, "METHOD=")
		case strings.HasPrefix(a, "BODY="):
			body = strings.NewReader(strings.TrimPrefix(a, "BODY="))
		case name == "Host":
			host = value
		default:
			header.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, args[1], body)
	if err != nil {
		return "", err
	}
	req.Header, req.Host = header, host
	res, err := transport(args[0]).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(string(b), "hello") {
		return "", fmt.Errorf("%d %.160s", res.StatusCode, b)
	}
	return fmt.Sprintf("%d %.160s", res.StatusCode, b), nil
}

// probeRaw: SNI HOST TEXT sends bytes on a connection of HTTP/1.1 and wants every answer to be a greeting.
func probeRaw(ctx context.Context, args ...string) (string, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", args[1]+":443")
	if err != nil {
		return "", err
	}
	t := tls.Client(c, &tls.Config{ServerName: args[0], InsecureSkipVerify: true}) //nolint:gosec // a client that does not look
	_ = t.SetDeadline(time.Now().Add(patience))
	text := strings.NewReplacer("\\r", "\r", "\\n", "\n").Replace(args[2])
	if _, err := io.WriteString(t, text); err != nil {
		return "", err
	}
	b, err := io.ReadAll(t)
	answers := regexp.MustCompile(`HTTP/1\.1 (\d{3}) `).FindAllSubmatch(b, -1)
	for _, a := range answers {
		if string(a[1]) != "200" {
			return "", fmt.Errorf("%s of %d answers", a[1], len(answers))
		}
	}
	if len(answers) == 0 {
		return "", fmt.Errorf("no answer: %w", err)
	}
	return fmt.Sprintf("%d answers", len(answers)), nil
}

// probeGRPC calls a method by a real client of gRPC, both ways in turn.
func probeGRPC(ctx context.Context, args ...string) (string, error) {
	c := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](transport("2"), args[0], connect.WithGRPC())
	stream := c.CallBidiStream(ctx)
	for range 3 {
		_ = stream.Send(wrapperspb.String("hello")) // Receive tells why it failed
		m, err := stream.Receive()
		if err != nil {
			return "", err
		}
		if m.GetValue() != "hello" {
			return "", fmt.Errorf("%q", m.GetValue())
		}
	}
	if err := stream.CloseRequest(); err != nil {
		return "", err
	}
	return "three messages each way, trailers " + fmt.Sprint(stream.ResponseTrailer()), stream.CloseResponse()
}

func probeSocket(ctx context.Context, args ...string) (string, error) {
	c, _, err := websocket.Dial(ctx, args[0], &websocket.DialOptions{HTTPClient: transport("1")}) //nolint:bodyclose // it has none
	if err != nil {
		return "", err
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return "", err
	}
	_, b, err := c.Read(ctx)
	return string(b), err
}

// probeEvents wants the first event long before the second.
func probeEvents(ctx context.Context, args ...string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	if err != nil {
		return "", err
	}
	res, err := transport(args[0]).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	begin := time.Now() // of the body: the next event comes five seconds later
	first, err := lines.ReadString('\n')
	if took := time.Since(begin); err == nil && took > 3*time.Second {
		err = fmt.Errorf("the first event came after %s", took)
	}
	return strings.TrimSpace(first), err
}

// probeHold keeps a stream of events, says "up", and then how it ended.
func probeHold(ctx context.Context, args ...string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	if err != nil {
		return "", err
	}
	res, err := transport(args[0]).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	for first := true; ; first = false {
		if _, err := lines.ReadString('\n'); err != nil {
			return "", fmt.Errorf("it ended: %w", err)
		}
		if first {
			fmt.Println("up")
		}
	}
}

// probeECH: HOST sends a hello with the extension encrypted_client_hello, and waits for the server's.
func probeECH(ctx context.Context, args ...string) (string, error) {
	var hello bytes.Buffer
	_ = tls.Client(&sink{w: &hello}, &tls.Config{ServerName: args[0], MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
	// An outer hello, KDF and AEAD, a configuration, an encapsulated key, and what could be encrypted.
	extension := append([]byte{0xfe, 0x0d, 0, 58, 0, 0, 1, 0, 1, 5, 0, 32}, make([]byte, 32)...)
	extension = append(append(extension, 0, 16), make([]byte, 16)...)
	record := hello.Bytes()
	grow := func(at, size int) { // a length that stands at the end of size bytes
		n := 0
		for _, b := range record[at : at+size] {
			n = n<<8 | int(b)
		}
		n += len(extension)
		for i := at + size - 1; i >= at; i-- {
			record[i] = byte(n)
			n >>= 8
		}
	}
	at := 5 + 4 + 2 + 32
	at += 1 + int(record[at])                          // session
	at += 2 + (int(record[at])<<8 | int(record[at+1])) // cipher suites
	at += 1 + int(record[at])                          // compression
	grow(3, 2)
	grow(6, 3)
	grow(at, 2)
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", args[0]+":443")
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(append(record, extension...)); err != nil {
		return "", err
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil {
		return "", err
	}
	if b[0] != 0x16 || b[5] != 2 {
		return "", fmt.Errorf("no server's hello: %x", b)
	}
	return "a server's hello", nil
}

// sink takes what is written and has nothing to read.
type sink struct {
	net.Conn
	w io.Writer
}

func (s *sink) Write(b []byte) (int, error) { return s.w.Write(b) }
func (s *sink) Read([]byte) (int, error)    { return 0, io.EOF }
func (s *sink) Close() error                { return nil }

// SetDeadline does nothing.
func (s *sink) SetDeadline(time.Time) error { return nil }
