package egress

import (
	"os"
	"strings"
	"time"
)

// webArgs is the policy of webRows.
func webArgs() []string {
	return []string{
		"--allow", "web.test=GET,POST:/ok/**", "--allow", "web.test=POST:/test.Echo/*", "--allow", "other.web.test=GET:/ok/**", "--allow", "expired.web.test",
		"--allow", "self.web.test", "--allow", "misnamed.web.test", "--allow", "rebind.web.test", "--allow", "inside.web.test", "--allow", "opaque.test=opaque",
		"--allow", "grease.test", "--allow", "opaque.test:80=opaque", "--dns", resolver,
	}
}

// webRow is one way out by HTTP. Its probe is the Go client's.
type webRow struct {
	name  string
	probe []string
	want  string
	// dials means that a connection to the outside is made; a request may not arrive all the same.
	dials bool
}

const (
	okURL = "https://web.test/ok/1"
	head  = ` HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n`
)

func webRows() []webRow {
	return []webRow{
		{"HTTP/1.1", []string{"get", "1", okURL}, "allow", true},
		{"HTTP/2", []string{"get", "2", okURL}, "allow", true},
		{"plain HTTP", []string{"get", "1", "http://web.test/ok/1"}, "allow", true},
		{"a body", []string{"get", "2", okURL, "METHOD=POST", "BODY=some text"}, "allow", true},
		{"gRPC, both ways", []string{"grpc", "https://web.test/test.Echo/Call"}, "allow", true},
		{"gRPC, another method", []string{"grpc", "https://web.test/test.Other/Call"}, "deny", false},
		{"WebSocket", []string{"ws", "wss://web.test/ok/ws"}, "allow", true},
		{"WebSocket, another path", []string{"ws", "wss://web.test/ws"}, "deny", false},
		{"server-sent events, HTTP/1.1", []string{"events", "1", "https://web.test/ok/events"}, "allow", true},
		{"server-sent events, HTTP/2", []string{"events", "2", "https://web.test/ok/events"}, "allow", true},
		{"another method", []string{"get", "2", okURL, "METHOD=DELETE"}, "deny", false},
		{"another path", []string{"get", "2", "https://web.test/no"}, "deny", false},
		{"another path, plain", []string{"get", "1", "http://web.test/no"}, "deny", false},
		{"out of the path by dots", []string{"raw", "web.test", "web.test", "GET /ok/../no" + head + `\r\n`}, "deny", false},
		{"out of the path by encoded dots", []string{"raw", "web.test", "web.test", "GET /ok/%2e%2e/no" + head + `\r\n`}, "deny", false},
		{"out of the path by encoded slashes", []string{"raw", "web.test", "web.test", "GET /ok/..%2fno" + head + `\r\n`}, "deny", false},
		{"out of the path by a backslash", []string{"raw", "web.test", "web.test", `GET /ok/..%5cno` + head + `\r\n`}, "deny", false},
		{"fronting: another Host", []string{"get", "1", okURL, "Host: closed.test"}, "deny", false},
		{"fronting: another :authority", []string{"get", "2", okURL, "Host: closed.test"}, "deny", false},
		{"HTTP/2 coalescing: an allowed name's :authority", []string{"get", "2", okURL, "Host: other.web.test"}, "deny", false},
		{"another SNI than the connection's name", []string{"raw", "closed.test", "web.test", "GET /ok/1" + head + `\r\n`}, "deny", false},
		{"SNI of an allowed name on another's connection", []string{"raw", "other.web.test", "web.test", "GET /ok/1" + head + `\r\n`}, "deny", false},
		{"no SNI", []string{"raw", "", "web.test", "GET /ok/1" + head + `\r\n`}, "allow", true},
		{"CONNECT", []string{"raw", "web.test", "web.test", `CONNECT closed.test:443 HTTP/1.1\r\nHost: closed.test:443\r\nConnection: close\r\n\r\n`}, "deny", false},
		{"absolute form", []string{"raw", "web.test", "web.test", "GET http://closed.test/ok/1" + head + `\r\n`}, "deny", false},
		{"smuggling: CL and TE", []string{
			"raw", "web.test", "web.test", `POST /ok/1 HTTP/1.1\r\nHost: web.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /no` + head + `\r\n`,
		}, "deny", true},
		{"smuggling: a second request", []string{
			"raw", "web.test", "web.test", `GET /ok/1 HTTP/1.1\r\nHost: web.test\r\nContent-Length: 0\r\n\r\nGET /no` + head + `\r\n`,
		}, "deny", true},
		{"smuggling: TE that only some understand", []string{"raw", "web.test", "web.test", "POST /ok/1" + head + `Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`}, "deny", false},
		{"smuggling: HTTP/2 to HTTP/1.1 by Upgrade", []string{
			"raw", "web.test", "web.test", `GET /ok/1 HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\nGET /no` + head + `\r\n`,
		}, "deny", true},
		{"method override", []string{"get", "2", okURL, "X-HTTP-Method-Override: DELETE"}, "deny", false},
		{"path override", []string{"get", "2", okURL, "X-Original-URL: /no"}, "deny", false},
		{"redirect to a closed name", []string{"get", "2", "https://web.test/ok/redirect"}, "deny", true},
		{"expired certificate", []string{"get", "2", "https://expired.web.test/ok/1"}, "deny", true},
		{"self-signed certificate", []string{"get", "2", "https://self.web.test/ok/1"}, "deny", true},
		{"certificate of another name", []string{"get", "2", "https://misnamed.web.test/ok/1"}, "deny", true},
		{"name of a private address", []string{"get", "2", "https://inside.web.test/ok/1"}, "deny", false},
		{"opaque", []string{"get", "2", "https://opaque.test/ok/1"}, "allow", true},
		{"opaque, another SNI", []string{"raw", "closed.test", "opaque.test", "GET /ok/1" + head + `\r\n`}, "deny", true},
		{"opaque, encrypted client hello", []string{"ech", "opaque.test"}, "deny", true},
		{"looked into, encrypted client hello (GREASE)", []string{"ech", "grease.test"}, "allow", false},
	}
}

// web tries what HTTP offers.
func (s *suite) web() {
	exe, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	s.ok(append([]string{"net", "set", s.id}, webArgs()...)...)
	s.ok("cp", exe, s.id+":/root/client")
	for _, r := range webRows() {
		s.webRow("allow, HTTP", r)
	}
	s.audited()
	// Below a stream.
	held := s.holdWeb("2", "https://web.test/ok/events")
	s.ok("net", "set", s.id, "--allow", "web.test=GET:/ok/1", "--dns", resolver)
	verdict, how, _ := strings.Cut(<-held, " ")
	s.judge("allow, HTTP", row{name: "policy changed under a stream", want: "deny"}, verdict, how, nil)
	s.webRow("allow, HTTP", webRow{"policy changed: what is still allowed", []string{"get", "2", okURL}, "allow", true})
	s.ok(append([]string{"net", "set", s.id}, webArgs()...)...)
	held = s.holdWeb("1", "https://web.test/ok/events")
	s.killGateway()
	verdict, how, _ = strings.Cut(<-held, " ")
	s.judge("allow, HTTP", row{name: "gateway killed under a stream", want: "deny"}, verdict, how, nil)
	s.webRow("allow, HTTP", webRow{"gateway killed: the next one is trusted too", []string{"get", "2", okURL}, "allow", true})
}

func (s *suite) webRow(mode string, r webRow) {
	s.world.take()
	verdict, how := s.webProbe(r.probe...)
	reached := s.world.take()
	if r.want == "deny" {
		var bad []string
		for _, what := range reached {
			request := strings.HasPrefix(what, "http ") && !strings.Contains(what, " /ok/")
			elsewhere := strings.HasPrefix(what, "tcp ") && !(r.dials && strings.HasPrefix(what, "tcp "+web+":"))
			untrusted := strings.HasPrefix(what, "http expired.") || strings.HasPrefix(what, "http self.") || strings.HasPrefix(what, "http misnamed.")
			if request || elsewhere || untrusted || strings.HasPrefix(what, "http ") && !r.dials {
				bad = append(bad, what)
			}
		}
		reached = bad
	}
	if r.probe[0] == "ech" && r.want == "allow" {
		reached = append(reached, "the gateway's own hello")
	}
	s.judge(mode, row{name: r.name, probe: r.probe, want: r.want}, verdict, how, reached)
}

func (s *suite) webProbe(args ...string) (verdict, how string) {
	out, err := s.run(append([]string{"exec", s.id, "-e", partVar + "=" + partClient, "--", "/root/client"}, args...)...)
	if err != nil {
		return "error", err.Error()
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	verdict, how, _ = strings.Cut(lines[len(lines)-1], " ")
	return verdict, how
}

// holdWeb holds a stream of events.
func (s *suite) holdWeb(version, url string) <-chan string {
	return s.holding([]string{"exec", s.id, "-e", partVar + "=" + partClient, "--", "/root/client", "hold", version, url}, true)
}

// audited looks for the requests in the record.
func (s *suite) audited() {
	s.Helper()
	var log string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		log = s.ok("net", "log", "--json", s.id)
		missing := ""
		for _, want := range []string{`"method":"DELETE"`, `"path":"/test.Echo/Call"`, `"status":101`, `"kind":"http"`, `"path":"/no"`} {
			if !strings.Contains(log, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			s.Errorf("the record has no %s", missing)
			return
		}
	}
}
