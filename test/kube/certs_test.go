// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority is the cluster's certificate authority, and the directory that holds everything it has signed: NAME.crt and
// NAME.key, its own being ca.crt.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	a := &authority{dir: dir, key: newKey(t)}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.sign(t, "ca", a.cert, a.key)
	return a
}

// client signs what proves to be this user, of that group.
func (a *authority) client(t *testing.T, name, user, group string) {
	t.Helper()
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	a.sign(t, name, &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, newKey(t))
}

// server signs what proves to be any of the names, which may be addresses.
func (a *authority) server(t *testing.T, name string, names ...string) {
	t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	a.sign(t, name, c, newKey(t))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func (a *authority) sign(t *testing.T, name string, c *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	var err error
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if !c.IsCA {
		c.KeyUsage = x509.KeyUsageDigitalSignature
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	for file, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: private}, ".pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		must(t, os.WriteFile(a.path(name+file), pem.EncodeToMemory(block), 0o600))
	}
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// kubeconfig writes NAME.conf for what client has signed.
func (a *authority) kubeconfig(t *testing.T, name, server string) string {
	t.Helper()
	return a.writeConfig(t, name, server, fmt.Sprintf(`{"client-certificate-data":%q,"client-key-data":%q}`, a.data(t, name+".crt"), a.data(t, name+".key")))
}

// tokenConfig writes NAME.conf for a bearer token.
func (a *authority) tokenConfig(t *testing.T, name, server, token string) string {
	t.Helper()
	return a.writeConfig(t, name, server, fmt.Sprintf(`{"token":%q}`, token))
}

// data is the file as a kubeconfig has it. Names of files would do, but client-go goes by them: it keeps its connections for
// the next test, whose authority is another one.
func (a *authority) data(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(a.path(file))
	must(t, err)
	return base64.StdEncoding.EncodeToString(b)
}

func (a *authority) writeConfig(t *testing.T, name, server, user string) string {
	t.Helper()
	path := a.path(name + ".conf")
	must(t, os.WriteFile(path, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"lab",
"clusters":[{"name":"lab","cluster":{"server":%q,"certificate-authority-data":%q}}],
"users":[{"name":%q,"user":%s}],
"contexts":[{"name":"lab","context":{"cluster":"lab","user":%q}}]}
`, server, a.data(t, "ca.crt"), name, user, name), 0o600))
	return path
}
