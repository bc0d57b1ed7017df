"""The same, for programs with an event loop: commands side by side, and output as it comes."""

import asyncio

from smolvm import AsyncSmolVM


async def main() -> None:
    async with AsyncSmolVM() as vm:
        results = await asyncio.gather(*(vm.run(f"echo {i}; sleep 1") for i in range(5)))
        print([r.output for r in results])
        async with await vm.process("while read line; do echo got $line; done", stdin=True) as process:
            for word in ("one", "two"):
                await process.write(word + "\n")
                async for stream, data in process:
                    print(stream, data)
                    break  # there will be more
            await process.close_stdin()
            print("exit code", (await process.wait()).exit_code)
        try:
            await asyncio.wait_for(vm.run("sleep 600"), 2)  # cancelled, it is killed in the VM
        except asyncio.TimeoutError:
            print("sleeping:", (await vm.run("pgrep -c sleep; true")).output)


if __name__ == "__main__":
    asyncio.run(main())
