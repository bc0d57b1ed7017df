// Package har writes the requests of a VM's record as an HTTP archive, version 1.2, which browsers and proxies read. What the
// record has not (headers, bodies, queries) the archive has not either.
//
// Layer: part of the front cli. It may import api.
package har

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
)

// Writer writes an archive as its requests come.
type Writer struct {
	w       io.Writer
	creator creator
	begun   bool
}

// New returns a Writer for the program of this version.
func New(w io.Writer, version string) *Writer {
	return &Writer{w: w, creator: creator{"SmolVM", version}}
}

// Add adds a record. Those that are not about requests have no place in an archive.
func (h *Writer) Add(r api.NetRecord) error {
	if r.Kind != "http" {
		return nil
	}
	before := ",\n"
	if !h.begun {
		if err := h.begin(); err != nil {
			return err
		}
		before = "\n"
	}
	b, err := marshal(entryOf(r))
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	_, err = fmt.Fprintf(h.w, "%s%s", before, b)
	return err
}

// Close ends the archive. It does not close what it is written to.
func (h *Writer) Close() error {
	if !h.begun {
		if err := h.begin(); err != nil {
			return err
		}
	}
	_, err := io.WriteString(h.w, "\n]}}\n")
	return err
}

func (h *Writer) begin() error {
	h.begun = true
	b, err := marshal(h.creator)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	_, err = fmt.Fprintf(h.w, `{"log": {"version": "1.2", "creator": %s, "entries": [`, b)
	return err
}

// marshal leaves <, > and & as they are: nobody puts an archive into a page unread.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

type (
	creator struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	pair  struct{} // headers, cookies, parts of a query: the record has none
	entry struct {
		Started  string   `json:"startedDateTime"`
		Time     int64    `json:"time"`
		Request  request  `json:"request"`
		Response response `json:"response"`
		Cache    struct{} `json:"cache"`
		Timings  timings  `json:"timings"`
		Server   string   `json:"serverIPAddress,omitempty"`

		// What the format has no field for; such begin with an underscore.
		Verdict string   `json:"_verdict"`
		Rule    string   `json:"_rule,omitempty"`
		Reason  string   `json:"_reason,omitempty"`
		Secrets []string `json:"_secrets,omitempty"`
	}
	request struct {
		Method      string `json:"method"`
		URL         string `json:"url"`
		HTTPVersion string `json:"httpVersion"`
		Cookies     []pair `json:"cookies"`
		Headers     []pair `json:"headers"`
		QueryString []pair `json:"queryString"`
		HeadersSize int    `json:"headersSize"`
		BodySize    int64  `json:"bodySize"`
	}
	response struct {
		Status      int     `json:"status"`
		StatusText  string  `json:"statusText"`
		HTTPVersion string  `json:"httpVersion"`
		Cookies     []pair  `json:"cookies"`
		Headers     []pair  `json:"headers"`
		Content     content `json:"content"`
		RedirectURL string  `json:"redirectURL"`
		HeadersSize int     `json:"headersSize"`
		BodySize    int64   `json:"bodySize"`
	}
	content struct {
		Size     int64  `json:"size"`
		MimeType string `json:"mimeType"`
	}
	timings struct {
		Send    int64 `json:"send"`
		Wait    int64 `json:"wait"`
		Receive int64 `json:"receive"`
	}
)

func entryOf(r api.NetRecord) entry {
	const unknown = -1 // the format's word for it
	version := r.HTTPVersion
	if version == "" { // a record of an older SmolVM
		version = "HTTP"
	}
	return entry{
		Started: r.Time.UTC().Format(time.RFC3339Nano), Time: r.DurationMs,
		Request: request{
			Method: r.Method, URL: address(r), HTTPVersion: version, Cookies: []pair{}, Headers: []pair{}, QueryString: []pair{},
			HeadersSize: unknown, BodySize: r.BytesOut,
		},
		Response: response{
			Status: r.Status, StatusText: http.StatusText(r.Status), HTTPVersion: version, Cookies: []pair{}, Headers: []pair{},
			Content: content{r.BytesIn, "application/octet-stream"}, HeadersSize: unknown, BodySize: r.BytesIn,
		},
		Timings: timings{Wait: r.DurationMs}, // of which we know only the whole
		Server:  r.Addr,
		Verdict: r.Verdict, Rule: r.Rule, Reason: r.Reason, Secrets: r.Secrets,
	}
}

// address is a request's URL, without the port where that is the scheme's own.
func address(r api.NetRecord) string {
	scheme, host := r.Proto, r.Name
	own := map[string]int{"http": 80, "https": 443}
	if own[scheme] == 0 {
		if scheme = "https"; r.Port == own["http"] {
			scheme = "http"
		}
	}
	if r.Port != 0 && r.Port != own[scheme] {
		host = net.JoinHostPort(host, strconv.Itoa(r.Port))
	}
	// A record's path is decoded but for slashes that were encoded.
	parts := strings.Split(r.Path, "%2F")
	for i, part := range parts {
		parts[i] = (&url.URL{Path: part}).EscapedPath()
	}
	return scheme + "://" + host + strings.Join(parts, "%2F")
}
