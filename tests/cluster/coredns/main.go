// A CoreDNS with the plugins that cluster DNS and the tests' DNS servers need, and no
// others: all of them together would bring in the clients of every cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
)

// The order in which a query passes the plugins.
var plugins = []string{"health", "ready", "log", "errors", "cache", "loadbalance", "hosts", "kubernetes", "forward"}

func main() {
	dnsserver.Directives = plugins
	coremain.Run()
}
