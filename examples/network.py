"""Lets a VM reach two names and nothing else, and shows what it tried."""

from smolvm import NetworkPolicy, SmolVM

POLICY = NetworkPolicy.allow("pypi.org:443", "files.pythonhosted.org:443")


def main() -> None:
    with SmolVM(policy=POLICY) as vm:
        reach = "curl -sS -m 20 -o /dev/null -w '%{http_code}' "
        print("pypi.org:", vm.run(reach + "https://pypi.org/simple/idna/").output)
        print("example.com:", vm.run(reach + "https://example.com/").stderr.strip())
        print("metadata:", vm.run(reach + "http://169.254.169.254/").exit_code != 0 and "refused")
        for record in vm.network_log():
            print(record.verdict, record.kind, record.name or record.addr, record.port or "")
        vm.set_policy("none")  # from now on, nothing, also of what is open already
        print("afterwards:", vm.run(reach + "https://pypi.org/simple/idna/").exit_code != 0 and "refused")


if __name__ == "__main__":
    main()
