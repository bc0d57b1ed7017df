package cacert

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL names files by it; nothing is secured by it
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Hash is the number by which OpenSSL finds a certificate (DER) in a folder: its subject's, as X509_NAME_hash makes it, in hexadecimal.
func Hash(der []byte) (string, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	canon, err := canonical(c.RawSubject)
	if err != nil {
		return "", err
	}
	sum := sha1.Sum(canon) //nolint:gosec // as above
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:])), nil
}

// attribute is a name's smallest part.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type attributeSET []attribute // encoding/asn1 knows a SET by this ending

// canonical is OpenSSL's canonical form of a name: strings in UTF-8 and lower case with single spaces, and no outer header.
func canonical(raw []byte) ([]byte, error) {
	var name []attributeSET
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("the subject: %d bytes too many, %w", len(rest), err)
	}
	var out bytes.Buffer
	for _, set := range name {
		for i := range set {
			if text, ok := text(set[i].Value); ok {
				set[i].Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(fold(text))}
			}
		}
		b, err := asn1.Marshal(set)
		if err != nil {
			return nil, fmt.Errorf("the subject: %w", err)
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

// text reads a string of any of the types that OpenSSL folds.
func text(v asn1.RawValue) (string, bool) {
	const visible, universal = 26, 28
	if v.Class != asn1.ClassUniversal {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, visible:
		return string(v.Bytes), true
	case asn1.TagT61String: // in truth Latin-1
		runes := make([]rune, len(v.Bytes))
		for i, b := range v.Bytes {
			runes[i] = rune(b)
		}
		return string(runes), true
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return string(utf16.Decode(units)), true
	case universal:
		runes := make([]rune, len(v.Bytes)/4)
		for i := range runes {
			runes[i] = rune(binary.BigEndian.Uint32(v.Bytes[4*i:])) //nolint:gosec // what is no rune becomes one
		}
		return string(runes), true
	}
	return "", false
}

// fold takes ASCII's case and superfluous space away, and leaves everything else.
func fold(s string) string {
	space := func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }
	s = strings.Join(strings.FieldsFunc(s, space), " ")
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
