from __future__ import annotations

import asyncio

import httpx


async def test_smoke(api: httpx.AsyncClient) -> None:
    r = await api.post("/v1/queries", json={"metrics": ["line_count"], "group_by": ["customer"]})
    print(r.status_code, r.headers, r.text)
    url = r.headers["location"]
    for _ in range(50):
        s = await api.get(url)
        if s.json()["state"] not in ("queued", "running"):
            break
        await asyncio.sleep(0.05)
    print(s.text)
    p = await api.get(url + "/results", params={"page": 2, "page_size": 5})
    print(p.status_code, p.text[:3000])
    print((await api.get("/v1/queries")).text)
    print(await api.delete(url))
    print((await api.delete(url)).status_code, (await api.get(url)).text)
    assert 0
